"""Descriptions as people write them into API specifications, HTML and Markdown mixed, as plain Markdown text."""

from __future__ import annotations

import html
import re
from functools import lru_cache
from html.parser import HTMLParser

_INLINE = frozenset(
    re.findall(
        r"\w+",
        "a abbr acronym b big center cite del dfn em font i ins kbd label mark nobr q s samp small span strike strong "
        "sub sup u var wbr function varname service parameter",
    )
)
_CODE = frozenset(["code", "tt", "kbd", "samp"])
_BLOCK = frozenset(
    re.findall(
        r"\w+",
        "address article aside blockquote body br caption caution dd details div dl dt fieldset figure footer form "
        "fullname h1 h2 h3 h4 h5 h6 header hr html important li main nav note ol p para pre section simpara summary "
        "table tbody td tfoot th thead tr ul warning",
    )
)
_HEADINGS = frozenset(["h1", "h2", "h3", "h4", "h5", "h6"])
_REMARKS = {"note": "Note:", "important": "Important:", "caution": "Caution:", "warning": "Warning:"}
_UNSEEN = frozenset(["script", "style", "head", "title", "iframe", "svg", "video", "object"])
_EMPTY = frozenset(["img", "input", "meta", "link", "source"])
_KNOWN = _INLINE | _CODE | _BLOCK | _UNSEEN | _EMPTY

_TAG = re.compile(rf"</?(?:{'|'.join(sorted(_KNOWN))})(?=[\s/>])[^<>]*>", re.IGNORECASE)
_BLOCK_TAG = re.compile(rf"</?(?:{'|'.join(sorted(_BLOCK - {'br', 'details', 'summary'}))})(?=[\s/>])", re.IGNORECASE)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_LITERAL = re.compile(
    r"^([`~]{3,})[^\n]*\n.*?^\1[`~]*[ \t]*$|(?<!`)(`+)(?!`)[^\n]*?(?<!`)\2(?!`)", re.DOTALL | re.MULTILINE
)
_KEPT = re.compile("\x00(\\d+)\x00")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]\w{1,31});")
_BARE_AMPERSAND = re.compile(r"&(?!#?\w{1,32};)")
_LOOSE_ITEM = re.compile(r"^( *(?:-|\d+\.) [^\n]*)\n(?:[ \t]*\n)+(?= *(?:-|\d+\.) )", re.MULTILINE)
_GAP = re.compile(r"(?<=[\w.,;:!?)\"'*]) {2,}(?=[\w(\"'*])")
_IMAGE = re.compile(r"!\[[^\]\n]{0,300}\]\([^)\n]{0,1000}\)(?:\{[^}\n]*\})?")
_LINK = re.compile(r"\[((?:[^\[\]\n]|\n(?!\n)|\[[^\[\]\n]{0,200}\]){1,500})\]\((?:[^()\n]|\([^()\n]*\))*\)")
_NAMED_LINK = re.compile(r"\[([^\[\]\n]+)\]\[[^\[\]\n]*\]")
_LINK_TARGET = re.compile(r"^ {0,3}\[[^\]\n^]+\]:[ \t]+\S+.*$", re.MULTILINE)
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.{1,200}?)[ \t#]{0,20}$", re.MULTILINE)
_ADMONITION = re.compile(r"^(?:> ?)?\[!(NOTE|TIP|WARNING|IMPORTANT|CAUTION)\][ \t]*\n((?:>.*(?:\n|\Z))*)", re.MULTILINE)
_QUOTE = re.compile(r"^> ?", re.MULTILINE)
_WRITTEN_BREAK = re.compile(r"(?:(?:\\r)?\\n){2,}")  # escaped twice on its way into the description
_UNREADABLE = re.compile("[\ud800-\udfff\x00-\x08\x0b-\x1f\x7f\u200b\u200e\u200f\ufeff]")
_PLAIN = re.compile(r"[^<&\[#\r\\\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\u200b\u200e\u200f\ufeff\u00a0]*")
_WRAPPED = re.compile(r"[ \t]*\n(?![ \t]*\n)(?![ \t]*(?:[-*+>|]|\d+[.)])[ \t])[ \t]*(?!\x00)")
_SENTENCE_END = re.compile(r"[.!?][\"')\]`*]*(?=\s)|\n(?=\n)|:?\n(?=[ \t]*[-*+][ \t])")
# "If true, it is kept.By default it is not": a line end that was lost.
_GLUED = re.compile(
    r"(?<=[\s/`)])([A-Za-z][a-z]+)\.(?=(?:The|This|These|Those|That|There|They|If|By|For|When|In|It|A|An|And|Any|All|At|After|Also|"
    r"But|Before|Can|Currently|Defaults?|Deprecated|Do|Each|Example|However|Is|Must|No|Not|Note|Once|Only|One|Optional|Output|Please|"
    r"Possible|Requests?|Required|Returned|See|Setting|Since|So|Some|Supported|Then|To|Unless|Use|Valid|We|With|You|Your)\s)"
)
_TWO_DOTS = re.compile(r"(?<=\w)\.\.(?=\s|$)")
# "For a list of the roles, see here.": a link was all that it said
_POINTER = re.compile(
    r"(?:^|(?<=[.!?])[ \n])[^.!?\n]{0,200}\b(?:see|click|read more|found|available) here\.(?=\s|$)", re.IGNORECASE
)
# Messages that all of Google's services share, whose descriptions are about how services are written.
_SHARED = (
    ("A generic empty message that you can re-use", "An empty object."),
    ("Message that represents an arbitrary HTTP body", "An arbitrary HTTP body, such as raw binary or an HTML page."),
)
_LIST_ITEM = re.compile(r"\s*\n[ \t]*(?:[-*+]|\d+[.)])[ \t]")
LONGEST = 20_000  # characters of one description that are read
MOST_FENCES, MOST_TICKS = 100, 2_000  # beyond them code is text like any other: looking for its ends takes too long


@lru_cache(maxsize=1 << 15)
def clean(text: str) -> str:
    """The text as plain Markdown: no HTML, entities, links (their words stay), images, or stray white space.

    Headings become bold lines, since a description stands below headings of its page. What is in a code span or a
    fenced block stays as it is, and so do placeholders such as `<id>`, which are no HTML.
    """
    text = text[:LONGEST].replace("\r\n", "\n").replace("\r", "\n")
    if "  " in text or not _PLAIN.fullmatch(text):
        text = _from_markup(_UNREADABLE.sub(_readable, text.replace("\u00a0", " ")))
    return _tidied(text)


def mended(text: str) -> str:
    """Plain Markdown with spaces between its sentences, and without those that only led to a page.

    Messages that thousands of operations share are told in a few words.
    """
    if "." not in text:
        return text
    if short := next((short for long, short in _SHARED if text.startswith(long)), ""):
        return short
    return _POINTER.sub("", _TWO_DOTS.sub(".", _GLUED.sub(r"\1. ", text))).strip()


def shortened(text: str, limit: int) -> str:
    """The text up to the last end of a sentence within `limit` characters; else up to a word, with an ellipsis."""
    if len(text) <= limit:
        return text
    head = text[: limit + 1]
    ends = [found.end() for found in _SENTENCE_END.finditer(head)]
    if ends and ends[-1] >= limit // 4:
        head = head[: ends[-1]].rstrip()
    else:
        head = (re.match(r".*(?=\s)", head, re.DOTALL) or [head[:limit]])[0].rstrip(" ,;:-(\n") + " …"
    if head.count("```") % 2:
        head = head[: head.rindex("```")].rstrip()
    # a list that looks whole would say that there is nothing else, and a colon that something follows
    if _LIST_ITEM.match(text[len(head) :]) or head.endswith(":"):
        head = head.removesuffix(" …") + " …"
    return head


def _readable(found: re.Match[str]) -> str:
    return "\ufffd" if "\ud800" <= found[0] <= "\udfff" else ""


def _from_markup(text: str) -> str:
    literals: list[str] = []

    def keep(found: re.Match[str]) -> str:
        literals.append(found[0])
        return f"\x00{len(literals) - 1}\x00"

    fences = text.count("```") + text.count("~~~")
    if (fences or "`" in text) and fences <= MOST_FENCES and text.count("`") <= MOST_TICKS:
        text = _LITERAL.sub(keep, text)
    if "<" in text:
        text = _COMMENT.sub("", text)
    if _TAG.search(text):
        parser = _Html(flowing=_BLOCK_TAG.search(text) is not None)
        parser.feed(_BARE_AMPERSAND.sub("&amp;", text))
        parser.close()
        text = _LOOSE_ITEM.sub(r"\1\n", "".join(parser.parts))
    text = _ENTITY.sub(lambda found: html.unescape(found[0]), text).replace("\u00a0", " ")
    text = _WRITTEN_BREAK.sub("\n\n", text)
    text = _markdown_links(_ADMONITION.sub(_remark, text))
    text = _GAP.sub(" ", text)
    text = _HEADING.sub(lambda found: f"**{found[1].strip('*')}**", text)
    return _KEPT.sub(lambda found: literals[int(found[1])] if int(found[1]) < len(literals) else "", text)


def _remark(found: re.Match[str]) -> str:
    return f"{found[1].capitalize()}: {_QUOTE.sub('', found[2])}"


def _markdown_links(text: str) -> str:
    if "[" not in text:
        return text
    text = _LINK.sub(r"\1", _IMAGE.sub("", text))
    return _LINK_TARGET.sub("", _NAMED_LINK.sub(r"\1", text)) if _LINK_TARGET.search(text) else text


def _tidied(text: str) -> str:
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


class _Html(HTMLParser):
    """Collects Markdown; tags that HTML does not have (placeholders) stay as they are written."""

    def __init__(self, flowing: bool) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._flowing = flowing  # line ends in the text mean no more than spaces
        self._unseen = 0
        self._pre = 0
        self._in_code = False
        self._lists: list[int | None] = []  # the next number of each open list, None in a list of points
        self._cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag not in _KNOWN:
            self._put(self.get_starttag_text() or "")
        elif tag == "pre":
            self._pre += 1
            self._put("\n\n```\n" if self._pre == 1 else "")
        elif self._pre:
            self._put("\n" if tag == "br" else "")
        elif tag in _CODE:
            self._code(True)
        elif tag in ("ul", "ol"):
            self._lists.append(1 if tag == "ol" else None)
            self._put("\n" if len(self._lists) > 1 else "\n\n")
        elif tag == "li":
            self._item()
        elif tag == "br":
            self._put("\n")
        elif tag in ("td", "th"):
            self._put(" | " if self._cell else "")
            self._cell = True
        elif tag in ("tr", "dt"):
            self._cell = False
            self._put("\n- " if tag == "dt" else "\n")
        elif tag == "dd":
            self._put(": ")
        elif tag in _HEADINGS:
            self._put("\n\n**")
        elif tag in _REMARKS:
            self._put(f"\n\n{_REMARKS[tag]} ")
        elif tag in _BLOCK and not self._after_marker():
            self._put("\n\n" if not self._lists else "\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif tag not in _KNOWN:
            self._put(f"</{tag}>")
        elif tag == "pre":
            self._put("\n```\n\n" if self._pre == 1 else "")
            self._pre = max(0, self._pre - 1)
        elif self._pre:
            return
        elif tag in _CODE:
            self._code(False)
        elif tag in ("ul", "ol"):
            del self._lists[-1:]
            self._put("\n" if self._lists else "\n\n")
        elif tag in _HEADINGS:
            self._put("**\n\n")
        elif tag in _BLOCK - {"td", "th", "tr", "li", "dt", "dd", "br"}:
            self._put("\n\n" if not self._lists else "\n")

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if self._flowing and not self._pre and not self._in_code:
            data = _WRAPPED.sub(" ", data)
            if not data.strip():
                data = "\n\n" if data.count("\n") > 1 else " "
        last = self.parts[-1] if self.parts else "\n"
        self._put(data.lstrip(" ") if last.endswith(("\n", " ")) and not self._pre else data)

    def unknown_decl(self, data: str) -> None:
        self._put(data.removeprefix("CDATA["))

    def close(self) -> None:
        super().close()
        self._code(False)
        self._put("\n```\n" if self._pre else "")

    def _item(self) -> None:
        number = self._lists[-1] if self._lists else None
        if number is not None:
            self._lists[-1] = number + 1
        self._put("\n" + "  " * (len(self._lists) - 1) + ("- " if number is None else f"{number}. "))

    def _after_marker(self) -> bool:
        """Whether the text so far ends in the marker of a list item or a remark, which a paragraph continues."""
        tail = "".join(self.parts[-3:])[-24:]
        return re.search(r"(^|\n)[ ]*(-|\d+\.|Note:|Important:|Caution:|Warning:) $", tail) is not None

    def _code(self, opens: bool) -> None:
        if opens != self._in_code:
            self._in_code = opens
            self._put("`")

    def _put(self, text: str) -> None:
        if text and not self._unseen:
            self.parts.append(text)
