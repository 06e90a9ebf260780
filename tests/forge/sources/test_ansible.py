"""Ansible: options, markup, fragments, return values, examples as calls."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from source_reading import read

from hephaestus_jax.forge.ansible.files import doc_strings
from hephaestus_jax.forge.ansible.markup import paragraphs, sentences
from hephaestus_jax.forge.sources import SOURCES

MODULE = '''
DOCUMENTATION = r"""
module: lamp
short_description: Switches I(lamps)
description:
  - Switches a lamp, see M(acme.home.plug) and L(the manual, https://acme.example/x).
  - Needs O(name); O(level=5) is V(bright).
extends_documentation_fragment: [acme.home.auth, acme.home.gone]
deprecated: {removed_in: 3.0.0}
notes: [Keep it dry.]
options:
  name: {description: Its name., required: true, type: str, aliases: [id]}
  level:
    description: [How bright., "Since 12:30."]
    type: int
    default: 3
  state: {type: str, choices: {on: Lit., off: Dark.}}
  dimmers:
    type: list
    elements: dict
    suboptions:
      a: {type: dict, suboptions: {b: {type: dict, suboptions: {c: {type: dict, suboptions: {d: {type: dict,
          suboptions: {e: {type: str}}}}}}}}}
"""
EXAMPLES = r"""
# comment
- name: Make it O(bright)
  acme.home.lamp:
    name: desk
    level: 5

# about the next
- name: By template
  acme.home.lamp: {name: "{{ which }}"}
- name: Wrong type
  acme.home.lamp:
    name: desk
    level: high
- name: Another module
  debug: msg=x
- hosts: all
  tasks:
    - name: In a play
      lamp: name=desk
- name: "broken
"""
RETURN = """
lit: {description: Whether it is lit., returned: changed, type: bool, sample: true}
parts: {type: list, elements: dict, contains: {id: {type: int, description: Number}}}
"""
'''
FRAGMENT = '''
class ModuleDocFragment:
    DOCUMENTATION = r"""
    options:
      token: {description: A token., type: str}
      name: {description: not this one}
    """
'''


def written(tmp_path: Path, module: str = MODULE) -> None:
    plugins = tmp_path / "ansible_collections/acme/home/plugins"
    for folder in ("modules", "doc_fragments"):
        (plugins / folder).mkdir(parents=True, exist_ok=True)
    (plugins / "modules/lamp.py").write_text(textwrap.dedent(module))
    (plugins / "modules/__init__.py").write_text("")
    (plugins / "doc_fragments/auth.py").write_text(FRAGMENT)


def test_a_module(tmp_path: Path) -> None:
    written(tmp_path)
    (doc,), quarantine = read("ansible", tmp_path)
    assert (doc.name, doc.function, doc.provider, doc.interface) == ("acme.home.lamp", "lamp", "acme.home", "module")
    assert doc.description.startswith("Switches lamps.\n\nSwitches a lamp, see `acme.home.plug` and the manual.")
    assert "Needs `name`; `level=5` is `bright`." in doc.description and doc.description.endswith("- Keep it dry.")
    assert doc.deprecated and doc.provenance.licence == "GPL-3.0-or-later"
    assert quarantine.counts == {"documentation fragment not found": 1, "malformed example": 1}
    fields = doc.parameters["properties"]
    assert doc.parameters["required"] == ["name"] and list(fields) == ["name", "level", "state", "dimmers", "token"]
    assert fields["name"]["description"] == "Its name. Also: `id`."
    assert fields["level"] == {"type": "integer", "description": "How bright. Since 12:30.", "default": 3}
    assert fields["state"]["enum"] == ["on", "off"] and "- `on`: Lit." in fields["state"]["description"]
    inner = fields["dimmers"]["items"]
    for name in "abc":
        inner = inner["properties"][name]
    assert inner["properties"] == {"d": {"type": "object"}}  # the fifth level is the last
    assert doc.provenance.processing == ("1 deeper fields left out",)
    assert doc.returns["properties"]["lit"]["description"] == "Whether it is lit. Returned: changed."
    assert doc.returns["properties"]["parts"]["items"]["properties"]["id"] == {
        "type": "integer",
        "description": "Number",
    }


def test_examples(tmp_path: Path) -> None:
    written(tmp_path)
    (doc,), _ = read("ansible", tmp_path)
    assert [(e.intent, e.arguments) for e in doc.examples] == [
        ("Make it `bright`", {"name": "desk", "level": 5}),
        ("By template", None),
        ("Wrong type", None),
        ("In a play", None),
    ]
    assert (
        doc.examples[0].call.startswith("- name: Make it O(bright)\n  acme.home.lamp:")
        and "#" not in doc.examples[0].call
    )


def test_other_ways_to_write_it(tmp_path: Path) -> None:
    assert doc_strings("DOCUMENTATION = (\n 'short_description: x\\n'\n 'options: {}'\n)")["DOCUMENTATION"].startswith(
        "short"
    )
    folder = tmp_path / "ansible/modules"
    folder.mkdir(parents=True)
    (folder / "ping.py").write_text("DOCUMENTATION = 'short_description: Pings'\n")
    (doc,), _ = read("ansible", tmp_path)
    assert doc.name == "ansible.builtin.ping" and doc.description == "Pings."
    other = tmp_path / "ansible_collections/a/b/plugins/modules"
    other.mkdir(parents=True)
    (other / "win.yml").write_text(
        "DOCUMENTATION: {short_description: Win, options: {x: {type: bool}}}\nEXAMPLES: 'x'\n"
    )
    records, _ = read("ansible", tmp_path)
    assert [record.name for record in records] == ["ansible.builtin.ping", "a.b.win"]


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("x = 1", "no documentation"),
        ("DOCUMENTATION = ((", "no Python"),
        ('DOCUMENTATION = """[unclosed"""', "malformed YAML"),
        ('DOCUMENTATION = """- a list"""', "malformed documentation"),
        ('DOCUMENTATION = """module: x"""', "nothing described"),
        ('DOCUMENTATION = """!!python/object/apply:os.system [x]"""', "malformed YAML"),
        ("DOCUMENTATION = " + "(" * 5000 + "1" + ")" * 5000, "no Python"),
        ('DOCUMENTATION = """' + "[" * 100_000 + '"""', "malformed YAML"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, module: str, reason: str) -> None:
    written(tmp_path, module)
    records, quarantine = read("ansible", tmp_path)
    assert records == [] and quarantine.counts == {reason: 1}


def test_markup() -> None:
    assert paragraphs(
        ["C(a) U(http://x) R(b, ref) E(HOME) RV(ns.c.m#module:r[].x) P(ns.c.l#lookup) V()", None, "HORIZONTALLINE"]
    ) == ['`a` http://x b `HOME` `r[].x` `ns.c.l` `""`']
    assert paragraphs("NOTE(x) (C(f\\(\\)))") == ["NOTE(x) (`f()`)"]


def test_it_is_off_by_default() -> None:
    assert not SOURCES["ansible"].default


def test_sentences_of_a_description_end() -> None:
    assert sentences(["One", "two.", "three"]) == "One. two. three"


def test_what_generators_leave_behind_is_mended() -> None:
    assert paragraphs(["Get all pets _of _shops.", "Paths used are get /pets,", "See _ref and x _y"]) == [
        "Get all pets of shops.", "Paths used are get /pets", "See _ref and x _y",
    ]  # fmt: skip
