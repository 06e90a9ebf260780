"""reStructuredText, with what documentation systems add to it, as Markdown.

`docutils` reads it: nothing outside the package's own folder is included, and no directive runs code.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, cast

from docutils import nodes
from docutils.core import publish_doctree
from docutils.frontend import get_default_settings
from docutils.parsers.rst import Parser, roles
from docutils.readers.standalone import Reader

from hephaestus_jax.forge.documentation.directives import Page, know_directives
from hephaestus_jax.forge.documentation.places import places
from hephaestus_jax.forge.documentation.roles import shown
from hephaestus_jax.forge.documentation.tree import markdown_of
from hephaestus_jax.forge.sources.source import SourceFile

_OWN_ROLES = frozenset(["math", "sub", "sup", "subscript", "superscript", "emphasis", "strong", "literal"])
_ROLE = re.compile(r":([\w:+.-]+):`|`:([\w:+.-]+):")


def rst_to_markdown(text: str, file: SourceFile) -> str:
    """A page as Markdown: headings, paragraphs on one line each, lists, tables, fenced code.

    Args:
        text: of the page.
        file: where it stands; titles that it refers to and files that it includes are looked up there.

    Raises:
        Exception: `docutils` met what it did not expect, for instance deeper nesting than Python's stack can hold; it
            has no class of its own for that.
    """

    def role(
        name: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = ()
    ) -> tuple[list[nodes.Node], list[Any]]:
        found = shown(name.lower(), text, places(file.root), file.path)
        return [nodes.literal(rawtext, found.text) if found.code else nodes.inline(rawtext, found.text)], []

    def know_roles(text: str) -> None:
        for found in _ROLE.finditer(text):
            name = (found[1] or found[2]).lower()
            if name not in _OWN_ROLES:
                roles.register_local_role(name, cast(Any, role))

    know_directives(text)
    know_roles(text)
    version = file.origin.version
    known = "".join(f".. |{name}| replace:: {version}\n" for name in ("version", "release"))
    settings = _settings().copy()
    settings.page, settings.know_roles = Page(file), know_roles
    document = publish_doctree(f"{text}\n\n{known}", source_path=file.path, settings=settings)
    return markdown_of(document)


@cache
def _settings() -> Any:
    settings = get_default_settings(Parser, Reader)
    settings.file_insertion_enabled = settings.raw_enabled = False
    settings.docinfo_xform = settings.doctitle_xform = settings.sectsubtitle_xform = False
    settings.report_level, settings.halt_level, settings.warning_stream = 5, 6, False
    settings.syntax_highlight, settings.line_length_limit = "none", 20_000
    settings._disable_config = True  # of the machine
    settings.traceback = True  # an exception is raised, where the program would print it and exit
    return settings
