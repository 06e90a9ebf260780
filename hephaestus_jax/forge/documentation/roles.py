"""What a role of reStructuredText or MyST, `:py:func:` or `{py:func}`, would show its reader."""

from __future__ import annotations

import re
from typing import NamedTuple

from hephaestus_jax.forge.documentation.places import Places

_TITLED = re.compile(r"(.+?)\s*(?<!\\)<([^<>]*)>", re.DOTALL)
_CALLED = frozenset(["func", "meth", "function", "method"])
_TEXT = frozenset(re.findall(r"[\w-]+", """
    ref doc term numref any menuselection guilabel dfn abbr download pypi user repo commit sha rev source app eq octicon
    wiki doi arxiv token keyword formula_url blob github_user emphasis ghfile cite footcite bdg
"""))  # fmt: skip
_NUMBERED = frozenset(["issue", "pr", "pull", "ghpull", "ghissue", "gh", "ticket", "bug", "bpo", "pr-distributed"])
_SHOWN_AS_TEXT = re.compile(r"bdg-|.*-doc$|cite:|footcite:|material|fa[bsr]?$")


class Shown(NamedTuple):
    """The words of a role, and whether they are code."""

    text: str
    code: bool


def shown(role: str, text: str, places: Places, page: str) -> Shown:
    """What a role shows.

    Args:
        role: without colons or braces, in lower case.
        text: between the backquotes.
        places: the titles of the documentation.
        page: the path of the page it stands on.
    """
    text = " ".join(text.replace("\0", "").split())
    titled = _TITLED.fullmatch(text)
    short = role.rpartition(":")[2]
    if titled:
        title = titled[1].replace("\\", "")
        return Shown(title.lstrip("!~"), short not in _TEXT and " " not in title and not _is_text(role))
    if short in ("ref", "numref"):
        return Shown(places.title_of_label(text), False)
    if short == "doc":
        return Shown(places.title_of_page(text, page), False)
    if short in _NUMBERED:
        return Shown(f"#{text}" if text.isdigit() else text, False)
    if short == "cve":
        return Shown(f"CVE-{text.removeprefix('CVE-')}", False)
    if short in ("rfc", "pep"):
        return Shown(f"{short.upper()} {text}", False)
    if short == "samp":
        return Shown(re.sub(r"\{([^{}]*)\}", r"\1", text), True)
    if short == "menuselection":
        return Shown(text.replace("-->", "→"), False)
    if short in _TEXT or _is_text(role):
        return Shown(text.replace("&", "") if short == "guilabel" else text, False)
    return Shown(_identifier(text) + ("()" if short in _CALLED and not text.endswith(")") else ""), True)


def _is_text(role: str) -> bool:
    return _SHOWN_AS_TEXT.match(role) is not None


def _identifier(text: str) -> str:
    if text.startswith("~"):
        return re.sub(r"^[\w.]*\.(?=\w)", "", text[1:].lstrip("."))
    # "_orm.Session" stands for a module under a name that only the documentation has
    return re.sub(r"^_(?=[a-z]+\.)", "", text.lstrip("!.")) or text
