"""Written documentation: what is left of its markup is what a reader of the pages would see."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_reading import check

from hephaestus_jax.forge.hygiene.licences import is_permissive
from hephaestus_jax.forge.sources import SOURCES, Origin, SourceFile
from hephaestus_jax.forge.sources.source import files_below
from hephaestus_jax.formats.quarantine import Quarantine

PROSE = "A server answers the requests that its clients send to it, one after the other. " * 8


def _write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


def _read(root: Path, files: dict[str, str]) -> tuple[dict[str, str], Quarantine]:
    """The texts of the pages by their paths, below "docs"."""
    _write(root, {f"p-1/docs/{path}": text for path, text in files.items()})
    quarantine = Quarantine()
    source = SOURCES["project_docs"]
    records = []
    for path in source.select(files_below(root)):
        records += source.read(SourceFile(root, path, Origin("p-sdist", "2.1", "MIT")), quarantine)
    check(records)
    assert all((record.slice, record.language) == ("text", "en") for record in records)
    return {record.provenance.path.removeprefix("p-1/docs/"): record.text for record in records}, quarantine


def _page(root: Path, text: str, name: str = "page.rst", **files: str) -> str:
    found, _ = _read(root, {name: f"{text}\n\n{PROSE}\n", **{k.replace("__", "."): v for k, v in files.items()}})
    return found[name].replace(PROSE.strip(), "").strip()


def test_headings_paragraphs_lists_and_code(tmp_path: Path) -> None:
    text = """\
.. Copyright of somebody

.. _serving:

=======
Serving
=======

.. contents::
   :local:

Nothing
-------

.. autofunction:: serve

A line
------

A line that
is wrapped, ``as it is`` and *so*; see `the site <https://example.org>`_ [1]_.

Below
-----

- one
  item

  with two paragraphs::

      code = 1

1. first
2. second

term
   what it means

.. [1] A note at the foot.
"""
    assert (
        _page(tmp_path, text)
        == """\
# Serving

## A line

A line that is wrapped, `as it is` and *so*; see the site [1].

## Below

- one item

  with two paragraphs:

  ```
  code = 1
  ```

1. first
2. second

- **term**: what it means

[1] A note at the foot."""
    )


def test_directives_show_what_a_reader_would_see(tmp_path: Path) -> None:
    text = """\
.. toctree::
   :maxdepth: 2

   install

.. automodule:: server
   :members:

.. note:: Mind the
   gap.

.. versionadded:: 1.2
   The option.

.. method:: Server.run(port=80, *,
                       host="")
   :async:

   Runs |release| it.

   :param int port: where it listens
   :returns: nothing

- .. tip:: In a list.

.. confval:: nothing.is.said

.. tab:: Linux

   .. code-block:: bash
      :emphasize-lines: 1

      serve --now

.. raw:: html

   <b>no</b>

.. image:: picture.png

.. math:: a^2
   :label: square

.. list-table::
   :header-rows: 1
   :widths: auto

   * - Name
     - Meaning
   * - a
     - b | c

>>> serve()
1
"""
    assert (
        _page(tmp_path, text)
        == """\
Note: Mind the gap.

New in version 1.2: The option.

**`Server.run(port=80, *, host="")`**

Runs 2.1 it.

- `port`: where it listens
- **Returns**: nothing

- Tip: In a list.

**Linux**

```bash
serve --now
```

$$
a^2
$$

| Name | Meaning |
|---|---|
| a | b \\| c |

```python
>>> serve()
1
```"""
    )


@pytest.mark.parametrize(
    ("role", "told"),
    [
        (":class:`~server.http.Server`", "`Server`"),
        (":py:meth:`server.Server.run`", "`server.Server.run()`"),
        (":func:`the call <server.run>`", "the call"),
        (":class:`!Server`", "`Server`"),
        (":paramref:`_orm.relationship.back`", "`orm.relationship.back`"),
        (":ref:`limits`", "What it cannot do"),
        (":ref:`no-such-label`", "no such label"),
        (":doc:`other`", "The other page"),
        (":doc:`/other`", "The other page"),
        (":doc:`there </other>`", "there"),
        (":pep:`8`", "PEP 8"),
        (":issue:`12`", "#12"),
        (":guilabel:`&Open`", "Open"),
        (":command:`serve`", "`serve`"),
        (":samp:`serve {port}`", "`serve port`"),
        (":never-heard-of:`x.y`", "`x.y`"),
        ("`default role`", "`default role`"),
        ("`~server.http.Server`", "`Server`"),
        (":math:`x^2`", "$x^2$"),
        ("|no_such_thing|", "no_such_thing"),
        ("`no target`_", "no target"),
    ],
)
def test_roles(tmp_path: Path, role: str, told: str) -> None:
    other = "The other page\n==============\n\n.. _limits:\n\nWhat it cannot do\n-----------------\n"
    assert _page(tmp_path, f"It is {role}, so.", other__rst=other) == f"It is {told}, so."


def test_files_are_included_from_the_package_alone(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    root = tmp_path / "root"
    code = "import a\n\n\nclass A:\n    def f(self):\n        return 1\n\n    def g(self):\n        return 2\n"
    text = f"""\
.. include:: part.inc

.. literalinclude:: code.py
   :pyobject: A.f

.. literalinclude:: /code.py
   :lines: 1

.. literalinclude:: code.py
   :start-after: f(self)
   :end-before: def g

.. include:: {tmp_path}/secret.txt

.. literalinclude:: ../../../secret.txt

.. include:: ../../../secret.txt
   :literal:

.. csv-table::
   :file: {tmp_path}/secret.txt

.. include:: page.rst
"""
    told = _page(root, text, part__inc="Said by :class:`~a.B`.", code__py=code)
    assert told.startswith("Said by `B`.\n\n```python\ndef f(self):\n    return 1\n```\n\n```python\nimport a\n```")
    assert "```python\nreturn 1\n```" in told and "secret" not in told
    assert len(told) < 10_000  # a page that includes itself ends


def test_markdown_keeps_its_words_and_loses_its_machinery(tmp_path: Path) -> None:
    text = """\
---
title: "Serving"
description: How to serve.
---
import Tabs from '@theme/Tabs'

<!-- a remark -->
[![build](b.svg)](https://example.org) [Words](other.md "title") and [more][site], [site].

- Spans stay, `a={<b>c</b>}` and
- [`x`][], `<Tabs x="1">` too, but <Name> is a name.

[site]: https://example.org

(label)=
## Start {#start}

<AppOnly>

!!! warning "Take care"
    It is {py:class}`~server.Server`.

:::note
Docusaurus says so.
:::

```{tip}
MyST says so.
```

```{code-block} python
:linenos:
x = "[a](b)"
```

```{toctree}
other
```

```ts filename="a.ts" switcher
let a: number
```

```js filename="a.js" switcher
let a
```

    indented <code> stays

</AppOnly>
"""
    assert (
        _page(tmp_path, text, "page.mdx")
        == """\
# Serving

How to serve.

Words and more, site.

- Spans stay, `a={<b>c</b>}` and
- `x`, `<Tabs x="1">` too, but <Name> is a name.

## Start

Take care: It is `Server`.

Note: Docusaurus says so.

Tip: MyST says so.

```python
x = "[a](b)"
```

`a.ts`:

```ts
let a: number
```

    indented <code> stays"""
    )


def test_what_is_no_prose_is_left_out(tmp_path: Path) -> None:
    kept = {"guide.txt": f"Guide\n=====\n\n{PROSE}", "topics/plain.txt": PROSE, "a/how-to.md": f"# How\n\n{PROSE}"}
    left_out = dict.fromkeys(
        ["changelog.rst", "releases/1.0.rst", "LICENSE.txt", "requirements.txt", "whatsnew/v1.rst", "tests/t.rst",
         "locale/de/guide.rst", "_templates/x.rst", "release-notes.md", "CMakeLists.txt"], PROSE,
    )  # fmt: skip
    left_out["api.rst"] = "API\n===\n\n" + ".. autofunction:: a\n\n" * 60
    left_out["list.txt"] = "word\n" * 400
    left_out["short.rst"] = "Short.\n"
    left_out["manual.rst"] = ".. licensed under a Creative Commons Attribution 3.0 licence\n\n" + PROSE
    found, quarantine = _read(tmp_path, {**kept, **left_out})
    assert sorted(found) == sorted(kept)
    assert dict(quarantine.counts) == {"licence of its own": 1}


def test_readmes_are_read_where_there_is_no_documentation(tmp_path: Path) -> None:
    paths = ["package/aws-s3/README.md", "package/node_modules/x/README.md", "package/lib/index.md"]
    assert SOURCES["project_docs"].select(paths) == ["package/aws-s3/README.md"]
    pages = [f"p-1/docs/{n}.rst" for n in range(9)]
    assert SOURCES["project_docs"].select([*paths, *pages]) == pages


def test_packages_are_pinned_permissive_and_named_once() -> None:
    packages = SOURCES["project_docs"].packages
    assert len({package.origin for package in packages}) == len(packages) > 50
    assert all(is_permissive(package.licence) for package in packages)
    assert all(package.origin != package.name for package in packages if package.registry == "pypi")


@pytest.mark.parametrize("name", ["page.rst", "page.md"])
@pytest.mark.parametrize(
    "text",
    [
        "\n".join(" " * n + "- a" for n in range(600)),
        "\n".join("   " * n + ".. note::\n" for n in range(200)),
        ":ref:`" * 2_000,
        "[" * 5_000 + "](" * 5_000,
        "<" * 5_000,
        "|a|" * 3_000,
        "=" * 30_000,
        "\0\x01\x02`\0`_",
        ".. |a| replace:: |b|\n.. |b| replace:: |a|\n\n|a|",
        "```{note}\n" * 300,
        ":::{note}\n" * 300,
        "!!! note\n    " * 300,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_hostile_pages_are_read_or_set_aside(tmp_path: Path, name: str, text: str) -> None:
    _read(tmp_path, {name: f"{text}\n\n{PROSE}\n"})


_PARTS = st.sampled_from(
    [".. note::", ".. code:: x", ".. include:: page.rst", ":ref:`a`", "```{note}", "```", ":::", "   ", "\n", "a",
     "====", "|x|", ".. |x| image:: y", "* ", "[a](b)", "<div>", "`", "_", "::", ".. function:: f(", ":option: v", "\\"]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(_PARTS, max_size=40), st.sampled_from(["page.rst", "page.md"]))
def test_no_text_stops_a_reader(tmp_path_factory: pytest.TempPathFactory, parts: list[str], name: str) -> None:
    found, quarantine = _read(tmp_path_factory.mktemp("docs"), {name: f"{PROSE}\n\n{''.join(parts)}\n\n{PROSE}"})
    assert found or quarantine.counts
