"""Guides, tutorials and references that well-known projects ship in their source archives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from hephaestus_jax.forge.documentation.markdown import plain_markdown
from hephaestus_jax.forge.documentation.packages import PACKAGES
from hephaestus_jax.forge.documentation.rst import rst_to_markdown
from hephaestus_jax.forge.installed.prose import is_prose
from hephaestus_jax.forge.sources.source import SourceFile, source
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Document, Record

SHORTEST = 500  # characters of a page that says something
LONGEST = 2_000_000  # characters of a page that is read at all

_PAGE = re.compile(r"\.(?:rst|txt|md|mdx)$")
_BELOW = re.compile(r"(?:^|/)(?:docs?|documentation|galleries)/")
_ELSEWHERE = re.compile(
    r"(?i)(?:^|/)(?:tests?|test cases|testing-data|node_modules|vendor(?:ed)?[^/]*|subprojects|third_party|externals?|"
    r"locales?|_?templates?|_static|_sources|_themes?|theme|generated|changelogs?|changes|releases?|release[-_]?notes|"
    r"what'?s?[-_]?new|what_s_new|history|upcoming_changes|next_api_changes|prev_api_changes|deprecated|specs|blog|"
    r"bio|links|contributors?|team|sphinxext|data)/"
)
_NO_PAGE = re.compile(
    r"(?i)(?:^|/)(?:licen[cs]es?|copying|copyright|notice|authors?|contributors?|credits|thanks|acknowledgements?|"
    r"sponsors?|donat[^/]*|funding|code[-_]of[-_]conduct|security_?advisories|plugin_list|"
    r"change(?:s|log)?|news|history|release[-_ ]?notes?|releases?|whats[-_]?new|"
    r"(?:changelog|changes|release|whatsnew|news|history|version)[-_.][^/]*|"
    r"[^/]*[-_.](?:changelog|changes|release|news)|[^/]*requirements|cmakelists|robots|sitemap|"
    r"genindex|modindex|search|bibliography|references|[^/]*dictionary|[^/]*wordlist|spelling[^/]*)\.[a-z]+$"
)
_OTHER_LICENCE = re.compile(r"(?i)creative commons attribution|cc[- ]by[- ](?:sa|nc|\d)|gnu free documentation")
_PROVIDER = re.compile(r"^__PROVIDER_IMPORT__;\n", re.MULTILINE)  # its site puts the reader's choice there
_INDICES = re.compile(
    r"^#+ (?:Indices and tables|Indices|Index|Table of contents|Contents)\n+(?:- .*\n|\n)*(?=#|\Z)",
    re.IGNORECASE | re.MULTILINE,
)
_RST = re.compile(r"^\.\. |::\n|^([=\-~^\"'*+#])\1{3,}$|`_", re.MULTILINE)


def _files(paths: Iterable[str]) -> list[str]:
    """Pages of the documentation, and the guides that stand beside the code (`README.md`) where there is no more."""
    pages = [path for path in paths if _PAGE.search(path) and not _ELSEWHERE.search(path) and not _NO_PAGE.search(path)]
    below = [path for path in pages if _BELOW.search(path)]
    guides = [path for path in pages if path.endswith("/README.md")]
    return below if len(below) > 3 else sorted({*below, *guides})


@source("project_docs", *PACKAGES, files=_files)
def read_project_docs(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """Guides, tutorials and references that well-known projects ship in their source archives."""
    text = file.text(quarantine)
    if text is None or len(text) > LONGEST:
        return
    if _OTHER_LICENCE.search(text[:3_000]):
        quarantine.add("licence of its own", file.place(), "its text names Creative Commons or the FDL")
        return
    try:
        if file.path.endswith((".md", ".mdx")):
            text = plain_markdown(_PROVIDER.sub("", text).replace("__MODEL__", "model"), file)
        elif file.path.endswith(".rst") or _RST.search(text):
            text = rst_to_markdown(text, file)
    except Exception as error:  # of `docutils`, which has no class of its own for what it cannot read
        quarantine.add("unreadable markup", file.place(), f"{type(error).__name__}: {error}"[:300])
        return
    text = _INDICES.sub("", text)
    if len(text) >= SHORTEST and is_prose(text):
        yield Document(text=text, slice="text", provenance=file.provenance(), language="en")
