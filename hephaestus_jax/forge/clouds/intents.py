"""What an example is for, in the words of a request: "To list your buckets", "This example lists …" as "List …"."""

from __future__ import annotations

import re

LONGEST = 400  # characters
_NUMBERED = re.compile(
    r"^(?:\[[\w -]+\]\s*|\(?(?:example|scenario|step)\s*#?\d+\)?\s*[:.)-]*\s*|\d+\.\s+)", re.IGNORECASE
)
_LIST_OF = re.compile(r"^List (?:a )?(?:list )?of ", re.IGNORECASE)
_TO = re.compile(r"^(?:how\s+)?to:?\s+(?=\w)", re.IGNORECASE)
_THIS = re.compile(
    r"^(?:(?:the|this)\s+)?(?:following|below|next)?\s*(?:\S+\s+){0,4}?(?:examples?|commands?|call|request)\s+"
    r"(?:command\s+)?(?:also\s+|then\s+)?|^(?:the|this)\s+following\s+(?:`[^`]+`\s+)?(?=\w+s\s)",
    re.IGNORECASE,
)
_SHOWS = re.compile(
    r"^(?:shows?|demonstrates?|illustrates?|describes?)\s+(?:you\s+)?how\s+(?:to|you can)\s+"
    r"(?:use\s+.{1,80}?\s+to\s+)?",
    re.IGNORECASE,
)
_USES = re.compile(r"^uses?\s+the\s+`[^`]+`\s+(?:command|operation|action|subcommand)\s+to\s+", re.IGNORECASE)
_YOU_CAN = re.compile(r"^you\s+can\s+use\s+(?:the\s+)?`[^`]+`\s+(?:command\s+)?to\s+", re.IGNORECASE)
_ADVERB = re.compile(r"^(\w+ly)\s+(?=\w+s\b)")
_SENTENCE = re.compile(r"^.{8,}?[.!?](?=\s+[A-Z`*\"(]|\s*$)", re.DOTALL)
# What stands in front of some descriptions: for whom, where and since when the operation is.
_NOTICE = re.compile(
    r"(?:\*\*)?(?:Note|NOTE|Important|Warning|Caution)\b\W|End of support notice|"
    r"(?:\*\*)?Amazon \S+ will (?:end|discontinue)|"
    r"(?:\*\*)?(?:This|The) (?:API|action|operation|functionality) "
    r"(?:works with|is (?:not |only |no longer )?(?:supported|available|used|in preview|deprecated))"
)
_NO_VERBS = frozenset(["is", "has", "was", "its", "this", "does", "always", "as", "us"])


def intent(title: str, sentence: str) -> str:
    """What someone would ask for who wanted this example's call; "" if neither says.

    Args:
        title: a heading such as "Example 1: To describe an instance".
        sentence: its explanation such as "This example describes the specified instance."; it says more, where it
            can be turned into a request.
    """
    asked = request_of_sentence(sentence)
    return asked or request_of_title(title) or first_sentence(sentence)


def summary_first(words: str) -> str:
    """The description without a notice in front of it: what it notices comes second."""
    parts = words.split("\n\n")
    start = 0
    while start < len(parts) and (_NOTICE.match(parts[start]) or (start and parts[start].startswith("- "))):
        start += 1
    if 0 < start < len(parts):
        parts = [parts[start], *parts[:start], *parts[start + 1 :]]
    return "\n\n".join(parts)


def request_of_title(title: str) -> str:
    """A heading as a request: "To describe an instance" is "Describe an instance."; "" without one."""
    words = " ".join(_NUMBERED.sub("", title.strip().strip("*")).split())
    words = _LIST_OF.sub("List ", _TO.sub("", words).rstrip(".:").strip())
    if " " not in words:  # the name of an operation is no request
        return ""
    return _sentence(_imperative(words) or words)


def request_of_sentence(sentence: str) -> str:
    """A sentence about an example as a request; "" if it is not of that kind."""
    words = first_sentence(sentence)
    if found := _YOU_CAN.match(words):
        return _sentence(words[found.end() :])
    if (found := _THIS.match(words)) is None:
        return _sentence(_imperative(words) or "") if words else ""
    rest = words[found.end() :]
    if how := _SHOWS.match(rest) or _USES.match(rest):
        return _sentence(rest[how.end() :])
    return _sentence(_imperative(rest) or "")


def first_sentence(text: str) -> str:
    """The first sentence of a text, on one line, at most `LONGEST` characters."""
    words = " ".join(text.split()).removesuffix("::").strip().rstrip(":").rstrip()
    found = _SENTENCE.match(words)
    words = found[0] if found else words
    return words if len(words) <= LONGEST else words[: LONGEST - 1].rpartition(" ")[0] + " …"


def _imperative(words: str) -> str | None:
    """ "Lists all buckets" as "List all buckets"; None if it does not begin with a verb in the third person."""
    adverb = _ADVERB.match(words)
    head = adverb[0] if adverb else ""
    verb, space, rest = words[len(head) :].partition(" ")
    base = base_form(verb)
    if base is None or not space:
        return None
    rest = re.sub(
        r"\b(and|or|and then) (\w+s)\b(?= (?:a|an|the|all|its|it|them|that|only|then|returns?)\b)", _second_verb, rest
    )
    return f"{head}{base} {rest}"


def _second_verb(found: re.Match[str]) -> str:
    return f"{found[1]} {base_form(found[2]) or found[2]}"


def base_form(verb: str) -> str | None:
    """The infinitive of a verb in the third person: "lists", "copies"; None if it cannot be one."""
    low = verb.lower()
    if not re.fullmatch(r"[a-zA-Z-]{3,}s", verb) or low in _NO_VERBS or low.endswith(("ss", "us", "is")):
        return None
    if low.endswith("ies"):
        return verb[:-3] + "y"
    if low.endswith(("sses", "shes", "xes", "oes")) or (low.endswith("ches") and low != "caches"):
        return verb[:-2]
    return verb[:-1]


def _sentence(words: str) -> str:
    words = words.strip().rstrip(":").strip()
    if not words:
        return ""
    return words[0].upper() + words[1:] + ("" if words.endswith((".", "!", "?", "…")) else ".")
