"""Records that are left out of a corpus because nobody would learn from them, each with its reason."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence

from hephaestus_jax.forge.hygiene.language import language_of
from hephaestus_jax.formats.records import (
    Action,
    ApiDoc,
    CodeAction,
    Document,
    Json,
    MessageAction,
    Record,
    TextObservation,
    Trajectory,
)

SHORTEST_DOCUMENT, LONGEST_DOCUMENT = 40, 4_000_000  # characters
LONGEST_DESCRIPTION = 60_000
LONGEST_TRAJECTORY = 1_000_000
LONGEST_STEPS = 400
MOST_PARAMETERS = 500
LINES_LOOKED_AT = 2_000
# share of the (longer) lines of a text, and of code, that are copies of others
REPEATED_LINES, REPEATED_CODE_LINES = 0.6, 0.85
LONG_LINE = 2_000  # characters of a line that nobody wrote by hand
PACKED = 40_000  # characters of a document that is also looked at by how far it can be compressed

_PLACEHOLDER = re.compile(
    r"(?:to-?do|tbd|tba|fixme|xxx+|n/?a|none|null|nil|undefined|string|str|text|test(?:ing)?|foo|bar|baz|asdf|desc|"
    r"description|summary|no (?:description|summary|documentation)(?: (?:is )?(?:available|provided|given|yet))?|"
    r"(?:add |insert |enter |your |the )*(?:description|summary)(?: here| goes here)?|not documented(?: yet)?|"
    r"undocumented|missing (?:description|documentation|docstring)|(?:auto-?)?generated|success|ok|endpoint|api|method|"
    r"operation|default|optional|required|empty|placeholder|dummy|coming soon|work in progress|wip|deprecated|"
    r"internal(?: use only)?)",
    re.IGNORECASE,
)
_LOREM = re.compile(r"\b(?:lorem ipsum|dolor sit amet|consectetur adipis)", re.IGNORECASE)
_UNWRITTEN = re.compile(r"[A-Za-z0-9+/=_-]{400,}")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffd]")
_WORD = re.compile(r"[^\W_]+")


def why_left_out(record: Record, languages: Sequence[str]) -> str:
    """Why the record does not belong in a corpus, in a few countable words; "" when it does.

    Args:
        record: any.
        languages: ISO 639-1 codes of the natural languages to keep; all are kept when empty. A text whose language is
            not clear is kept.
    """
    if isinstance(record, ApiDoc):
        return _of_api(record) or _of_language(record.description, languages)
    if isinstance(record, Trajectory):
        return _of_trajectory(record) or _of_language(_said(record), languages)
    return _of_document(record, languages)


def is_placeholder(description: str, name: str = "", function: str = "") -> bool:
    """Whether a description says nothing: empty, "TODO", "string", or the name over again."""
    words = _words(description)
    text = " ".join(words)
    if not words or _PLACEHOLDER.fullmatch(description.strip().strip(".!:-_*# ")):
        return True
    names = (name, function, name.rpartition("/")[2], name.rpartition(".")[2])
    squeezed = text.replace(" ", "")
    # "List pets" for listPets is a description, however short; "listPets" and "/pets/{id}" are not
    spelled_out = " " in description.strip() and "/" not in description and "." not in description.strip(". ")
    return not spelled_out and any(squeezed == "".join(_words(known)) for known in names if known)


def _of_api(doc: ApiDoc) -> str:
    text = doc.description.strip()
    if is_placeholder(text, doc.name, doc.function):
        return "no description" if not text else "placeholder description"
    if len(text) > LONGEST_DESCRIPTION:
        return "description too long"
    properties = doc.parameters.get("properties")
    if isinstance(properties, dict) and len(properties) > MOST_PARAMETERS:
        return "too many parameters"
    return _of_text(text, code=False)


def _of_trajectory(trajectory: Trajectory) -> str:
    if not any(isinstance(step, Action) for step in trajectory.steps):
        return "no action"
    if len(trajectory.steps) > LONGEST_STEPS:
        return "too many steps"
    texts = [trajectory.system, *(str(getattr(step, "content", "")) for step in trajectory.steps)]
    if sum(map(len, texts)) > LONGEST_TRAJECTORY:
        return "trajectory too long"
    acts = [_act(step) for step in trajectory.steps if isinstance(step, Action)]
    if len(acts) >= 8 and Counter(acts).most_common(1)[0][1] > 0.75 * len(acts):
        return "one action over and over"
    said = [s.content for s in trajectory.steps if isinstance(s, MessageAction | TextObservation)]
    if any(_LOREM.search(text, 0, 100) for text in said):
        return "lorem ipsum"
    return "binary text" if any(_is_binary(text) for text in texts) else ""


def _of_document(document: Document, languages: Sequence[str]) -> str:
    text = document.text
    if len(text.strip()) < SHORTEST_DOCUMENT:
        return "too short"
    if len(text) > LONGEST_DOCUMENT:
        return "too long"
    code = document.slice == "code"
    reason = _of_text(text, code)
    return reason or ("" if code else _of_language(text, languages))


def _of_text(text: str, code: bool) -> str:
    if _is_binary(text):
        return "binary text"
    if not code and _LOREM.search(text, 0, 100):
        return "lorem ipsum"
    encoded = sum(len(run) for run in _UNWRITTEN.findall(text))
    if encoded > 0.5 * len(text):
        return "encoded text"
    lines = [line.strip() for line in text.split("\n", LINES_LOOKED_AT)[:LINES_LOOKED_AT]]
    if code and _is_minified(text, lines):
        return "minified code"
    long_lines = [line for line in lines if len(line) > 10]
    allowed = REPEATED_CODE_LINES if code else REPEATED_LINES
    if len(long_lines) >= 10 and 1 - len(set(long_lines)) / len(long_lines) > allowed:
        return "repeated lines"
    if len(text) > PACKED and len(zlib.compress(text[:PACKED].encode("utf-8", "replace"), 1)) < PACKED / 40:
        return "repeated text"
    return ""


def _is_binary(text: str) -> bool:
    looked_at = text[:20_000]
    return len(_CONTROL.findall(looked_at)) > 0.01 * len(looked_at) + 3


def _is_minified(text: str, lines: list[str]) -> bool:
    longest = max(map(len, lines), default=0)
    spaces = text.count(" ") + text.count("\n")
    return longest > LONG_LINE and len(text) / (text.count("\n") + 1) > 500 and spaces < 0.08 * len(text)


def _of_language(text: str, languages: Sequence[str]) -> str:
    if not languages:
        return ""
    code = language_of(text)
    return f"language {code}" if code and code not in languages else ""


def _said(trajectory: Trajectory) -> str:
    """What the user and the agent say; what tools return may be in any language."""
    parts = []
    for step in trajectory.steps:
        if isinstance(step, MessageAction) or (isinstance(step, TextObservation) and step.source == "user"):
            parts.append(step.content)
    return "\n".join(parts)


def _act(action: Action) -> Json:
    if isinstance(action, MessageAction | CodeAction):
        return action.content
    return action.function, repr(action.kwargs)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
