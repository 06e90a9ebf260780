"""The titles that references of a documentation lead to, and the files that its pages include."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from hephaestus_jax.forge.sources.source import SourceFile, files_below
from hephaestus_jax.formats.quarantine import Quarantine

PAGES = (".rst", ".txt", ".md", ".mdx", ".inc")
LONGEST_PAGE = 1 << 20  # characters that are looked through for labels
_RULE = r"([=\-~^\"'*+#`.:_<>])\{n}{{2,}}[ \t]*$"
_HEADING = rf"(?:{_RULE.format(n=1)}\n)?[ \t]*(?P<title>\S.*)\n{_RULE.format(n=3)}"
_RST_TITLE = re.compile(rf"^{_HEADING}", re.MULTILINE)
_MD_TITLE = re.compile(r"^# +(?P<title>\S.*?)[ \t#]*$|^title: *[\"']?(?P<front>.+?)[\"']?$", re.MULTILINE)
_RST_LABEL = re.compile(r"^\.\. _(?P<label>`[^`\n]+`|(?:\\:|[^:\n`])+):[ \t]*$", re.MULTILINE)
_MD_LABEL = re.compile(r"^\((?P<label>[^()\n]+)\)=\n+#+ +(?P<title>\S.*?)[ \t#]*$", re.MULTILINE)
_AFTER_LABELS = re.compile(rf"(?:\s*^\.\. _.*$|\s*^\.\. index::.*$)*\s*^{_HEADING}", re.MULTILINE)
_ROLE = re.compile(r":[\w:+.-]+:`~?([^`<]*?)\s*(?:<[^`]*>)?`|\{[\w:+.-]+\}`~?([^`<]*?)\s*(?:<[^`]*>)?`")


class Places:
    """Where the labels and the pages of a documentation are, by their titles."""

    def __init__(self, root: Path) -> None:
        self._labels: dict[str, str] = {}
        self._pages: dict[str, str] = {}
        for path in files_below(root):
            if path.endswith(PAGES):
                self._read(path, (root / path).read_text("utf-8", "replace")[:LONGEST_PAGE])

    def _read(self, path: str, text: str) -> None:
        title = (_MD_TITLE if path.endswith((".md", ".mdx")) else _RST_TITLE).search(text)
        if title:
            self._pages[path.rpartition(".")[0]] = _plain(title["title"] or title.groupdict().get("front") or "")
        for found in _MD_LABEL.finditer(text):
            self._labels.setdefault(_label(found["label"]), _plain(found["title"]))
        for found in _RST_LABEL.finditer(text):
            if heading := _AFTER_LABELS.match(text, found.end()):
                self._labels.setdefault(_label(found["label"]), _plain(heading["title"]))

    def title_of_label(self, label: str) -> str:
        """The heading that a label stands before; the words of the label if there is none."""
        return self._labels.get(_label(label)) or _words(label)

    def title_of_page(self, name: str, page: str) -> str:
        """The title of the page that `page` names as `name`, relative to itself or to the top; else words of it."""
        for path in _candidates(name.partition("#")[0], page):
            if title := self._pages.get(path) or self._pages.get(path.rpartition(".")[0]):
                return title
        return _words(name.rstrip("/").rpartition("/")[2])


@lru_cache(maxsize=4)
def places(root: Path) -> Places:
    """Those of everything below a folder, which is read once."""
    return Places(root)


def included(file: SourceFile, name: str) -> SourceFile | None:
    """The file that a page includes as `name`: beside it, or below one of the folders that it lies in."""
    for path in _candidates(name, file.path):
        found = SourceFile(file.root, path, file.origin)
        if (found.root / path).is_file() and not (found.root / path).is_symlink():
            return found
    return None


def text_of(file: SourceFile) -> str:
    """What a page includes; "" if it is not to be had, for then the page is read without it."""
    return file.text(Quarantine()) or "" if file.size <= LONGEST_PAGE else ""


def _candidates(name: str, page: str) -> Iterator[str]:
    folder = PurePosixPath(page).parent
    if not name.startswith("/"):
        if (joined := _normal(folder / name)) is not None:
            yield joined
        return
    for above in (folder, *folder.parents):
        if (joined := _normal(above / name.lstrip("/"))) is not None:
            yield joined


def _normal(path: PurePosixPath) -> str | None:
    """The path without ".."; None when it leads outside."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and not parts:
            return None
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _label(label: str) -> str:
    return " ".join(label.strip("`").replace("\\", "").lower().split())


def _words(label: str) -> str:
    return re.sub(r"[-_]+", " ", label.rpartition(":")[2]).strip()


def _plain(title: str) -> str:
    title = _ROLE.sub(lambda found: (found[1] or found[2] or "").rpartition("/")[2], title)
    return re.sub(r"\\(.)", r"\1", title.replace("``", "`")).strip().strip("*")
