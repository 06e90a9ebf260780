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


def page_of(*examples: str) -> str:
    return "".join(f"**To see pets**\n\nIt sees::\n\n    {example}\n\n" for example in examples)


def test_counts_are_integers_and_digits_of_names_are_not(tmp_path: Path) -> None:
    call = "aws pets see --max-items 5 --batch-size 10 --account-id 123456789012 --id 7 --phone-number 555 --port 080"
    (doc,), _ = read(tmp_path, "awscli/examples/pets/see.rst", page_of(call))
    assert doc.examples[0].arguments == {
        "max_items": 5, "batch_size": 10, "account_id": "123456789012", "id": "7", "phone_number": "555", "port": "080",
    }  # fmt: skip
    (doc,), _ = read(tmp_path, "awscli/examples/pets/see.rst", page_of(call, "aws pets see --batch-size file://n"))
    assert doc.parameters["properties"]["batch_size"]["type"] == "string"


def test_options_that_take_lists_do_so_with_one_item_unless_it_is_json(tmp_path: Path) -> None:
    call = "aws pets see --pet-ids a --names {} --tags Key=a,Value=b --region x"
    (doc,), _ = read(tmp_path, "awscli/examples/pets/see.rst", page_of(call.format("b")))
    assert doc.examples[0].arguments == {"pet_ids": ["a"], "names": ["b"], "tags": ["Key=a,Value=b"], "region": "x"}
    assert "configuration" in doc.parameters["properties"]["region"]["description"]
    (doc,), _ = read(tmp_path, "awscli/examples/pets/see.rst", page_of(call.format("'[1]'")))
    assert doc.examples[0].arguments is not None and doc.examples[0].arguments["names"] == "[1]"


def test_what_names_the_thing_in_every_example_is_required(tmp_path: Path) -> None:
    call = "aws pets delete-pet --pet-id 7 --shop-name x --note y"
    (doc,), _ = read(tmp_path, "awscli/examples/pets/delete-pet.rst", page_of(call))
    assert doc.parameters["required"] == ["pet_id", "shop_name"]
    (doc,), _ = read(tmp_path, "awscli/examples/pets/delete-pet.rst", page_of(call, "aws pets delete-pet --pet-id 7"))
    assert doc.parameters["required"] == ["pet_id"]
    (doc,), _ = read(tmp_path, "awscli/examples/pets/list-pets.rst", page_of("aws pets list-pets --shop-name x"))
    assert "required" not in doc.parameters


def test_examples_of_other_commands_are_left_out_and_lost_backslashes_are_put_back(tmp_path: Path) -> None:
    text = page_of("aws pets other --a b", "aws --region x pets see --a b  \n        --c d \\ \n        --e f")
    (doc,), _ = read(tmp_path, "awscli/examples/pets/see.rst", text)
    (example,) = doc.examples
    assert example.call == "aws --region x pets see --a b \\\n    --c d \\\n    --e f"
    docs, quarantine = read(tmp_path, "awscli/examples/pets/see.rst", page_of("aws pets sees --a b"))
    assert not docs and quarantine.counts == {"no example": 1}


def test_a_command_that_adds_itself_is_found_by_its_class(tmp_path: Path) -> None:
    text = """
from awscli.customizations.commands import BasicCommand
class BasicCommand:
    NAME = 'base'
    @classmethod
    def add_command(cls, command_table, session, **kwargs):
        command_table[cls.NAME] = cls(session)
class Other(BasicCommand):
    NAME = 'other'
    DESCRIPTION = 'Another.'
class Configure(BasicCommand):
    NAME = 'configure'
    DESCRIPTION = ('Sets up.\\n\\n=====\\nTitle\\n=====\\n\\n* one\\n  more\\n* two\\n')
def register(cli):
    cli.register('building-command-table.main', Configure.add_command)
"""
    read(tmp_path, "awscli/customizations/configure.py", text)
    (doc,), _ = read(tmp_path, "awscli/customizations/__init__.py", "")
    assert doc.name == "aws configure" and doc.description == "Sets up.\n\nTitle\n\n- one more\n- two"
