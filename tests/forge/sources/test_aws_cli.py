"""AWS's command line: pages of examples, its own commands, hostile pages and Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from hephaestus_jax.forge.sources.aws_cli import read_aws_cli
from hephaestus_jax.forge.sources.source import Origin, SourceFile
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import ApiDoc, from_json, to_json

ORIGIN = Origin("awscli", "1", "Apache-2.0")
PAGE = """**Example 1: To list pets**

The following ``list-pets`` example lists the pets of `Fur <http://x>`__. ::

    aws pets list-pets \\
        --shop "Fur and Co" \\
        --filters Name=kind,Values=cat Name=age,Values=2 \\
        --all

Output::

    {
        "Pets": ["Tom"]
    }

**Example 2: To list pets from a file**

The following command reads a file::

    aws pets list-pets --filters file://f.json

Contents of ``f.json``::

    {"a": 1}

This command produces no output.
"""
COMMAND = """
from awscli.customizations.commands import BasicCommand
HELP = {'name': 'quiet', 'action': 'store_true', 'help_text': 'Says ' 'nothing.'}
class Copy(BasicCommand):
    NAME = 'cp'
    DESCRIPTION = 'Copies ``pets``.'
    ARG_TABLE = [{'name': 'paths', 'nargs': 2, 'positional_arg': True}, HELP,
                 {'name': 'acl', 'choices': ['private', 'public'], 'required': True}, boom(), {'name': 7}]
class Pets(BasicCommand):
    NAME = 'pets'
    SUBCOMMANDS = [{'name': 'cp', 'command_class': Copy}, {'name': 'no', 'command_class': Missing}]
def add(command_table, session, **kwargs):
    command_table['pets'] = Pets(session)
def initialize(cli):
    cli.register('building-command-table.main', add)
"""


def read(root: Path, path: str, text: str) -> tuple[list[ApiDoc], Quarantine]:
    """Both the commands of one file of the package and what was set aside."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)
    quarantine = Quarantine()
    return [
        doc for doc in read_aws_cli(SourceFile(root, path, ORIGIN), quarantine) if isinstance(doc, ApiDoc)
    ], quarantine


def test_a_page_of_examples(tmp_path: Path) -> None:
    (doc,), quarantine = read(tmp_path, "awscli/examples/pets/list-pets.rst", PAGE)
    assert not quarantine
    assert (doc.name, doc.provider, doc.interface, doc.function) == (
        "aws pets list-pets", "aws-cli", "cli", "aws_pets_list_pets"
    )  # fmt: skip
    assert doc.description == "List pets.\n\nIts examples also show how to:\n\n- list pets from a file"
    first, second = doc.examples
    assert first.intent == "List the pets of Fur."
    assert first.arguments == {
        "shop": "Fur and Co",
        "filters": ["Name=kind,Values=cat", "Name=age,Values=2"],
        "all": True,
    }
    assert first.result == '{\n    "Pets": ["Tom"]\n}'
    assert second.result is None and "Contents of `f.json`" in second.call
    assert second.arguments == {"filters": ["file://f.json"]}
    assert doc.parameters["properties"]["all"] == {"type": "boolean", "x-cli-option": "--all"}
    assert doc.provenance.processing == ("parameters from examples",)
    assert from_json(to_json(doc)) == doc


def test_output_below_the_command_is_no_part_of_it(tmp_path: Path) -> None:
    page = "**To get a pet**\n\nCommand::\n\n  aws pets get-pet --id 7\n  {\n    'x': 1\n  }\n"
    (doc,), _ = read(tmp_path, "awscli/examples/pets/get-pet.rst", page)
    assert doc.examples[0].call == "aws pets get-pet --id 7"
    assert doc.examples[0].arguments == {"id": "7"} and doc.examples[0].result


@pytest.mark.parametrize("tail", ["| jq .", "> out.txt", "&& aws pets y", "--name $(whoami)", '--name "unclosed'])
def test_what_only_a_shell_can_tell_has_no_arguments(tmp_path: Path, tail: str) -> None:
    (doc,), _ = read(tmp_path, "awscli/examples/pets/x.rst", f"**To x**\n\nX::\n\n  aws pets x {tail}\n")
    assert doc.examples[0].arguments is None


def test_its_own_commands_are_read_from_python(tmp_path: Path) -> None:
    read(tmp_path, "awscli/customizations/pets.py", COMMAND)
    page = "**To copy**\n\nCopies::\n\n  aws pets cp a b --acl public --region x\n"
    cp = tmp_path / "awscli/examples/pets/cp.rst"
    cp.parent.mkdir(parents=True)
    cp.write_text(page)
    (doc,), quarantine = read(tmp_path, "awscli/customizations/__init__.py", "")
    assert not quarantine
    assert doc.name == "aws pets cp" and doc.description == "Copies `pets`."
    assert doc.parameters["required"] == ["paths", "acl"]
    assert doc.parameters["properties"]["quiet"]["description"] == "Says nothing."
    assert doc.parameters["properties"]["acl"]["enum"] == ["private", "public"]
    assert doc.examples[0].arguments == {"paths": ["a", "b"], "acl": "public", "region": "x"}
    assert doc.provenance.path.startswith("awscli/customizations/pets.py:")
    Draft202012Validator.check_schema(doc.parameters)
    assert read(tmp_path, "awscli/examples/pets/cp.rst", page)[0] == []  # it is the command above


def test_hostile_files_are_bounded(tmp_path: Path) -> None:
    bomb = "x = 'a' * 9\n" + "x = x + x\n" * 200 + "y = [y for y in [x] * 10**9]\nwhile True: pass\n"
    loop = "from .loop import *\ndef f(cli):\n    f(cli)\n    f(cli)\n"
    folder = tmp_path / "awscli/customizations"
    folder.mkdir(parents=True)
    for name, text in {"bomb": bomb, "broken": "def (", "loop": loop}.items():
        (folder / f"{name}.py").write_text(text)
    _, quarantine = read(tmp_path, "awscli/customizations/__init__.py", "")
    assert quarantine.counts == {"malformed Python": 1}
    assert read(tmp_path, "awscli/examples/pets/none.rst", "Nothing here.")[1].counts == {"no example": 1}
