"""The words of an operation: its description, its errors, its address; what says nothing is left out."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from hephaestus_jax.forge.openapi.documents import text_of
from hephaestus_jax.forge.openapi.wording import CLASS_NAME
from hephaestus_jax.forge.prose import clean, mended, shortened
from hephaestus_jax.formats.records import ApiError, Json

LONGEST_DESCRIPTION = 6_000  # characters of an operation's description
LONGEST_ERROR = 300
MOST_ERRORS = 20
_NOTHING = re.compile(
    r"(?:todo\b[^\n]*|tbd|tba|n/?a|none|null|nil|undefined|description|summary|no description\b.*|"
    r"(?:the )?description (?:was |is )?not (?:specified|provided|available)|your (?:get|post) endpoint|"
    r"missing description|auto[- ]?generated(?: (?:using|by|from|with)\b.*)?|string|-+|\.+|\W*)",
    re.IGNORECASE,
)
_EMPTY_SUCCESS = re.compile(
    r"(?:a |the )?(?:ok(?:ay)?|success(?:ful|fully)?|default|default response|response|result|created|accepted|"
    r"successful (?:operation|response|request|query|execution)|success(?:ful)? (?:response|operation)|no ?content|"
    r"operation (?:succeeded|successful)|(?:ok\W+)?(?:the )?request (?:has |was )?succeeded|"
    r"200,? (?:ok|response|success)|2\d\d|request (?:to the [\w ]{1,40} )?(?:was )?success(?:ful)?|ok\W+|"
    r"expected response to a valid request|json response|"
    r"everything worked as expected|ok response definition|"
    r"successful \(?no content\)?|no response was specified|default successful response)\W*",
    re.IGNORECASE,
)
_EMPTY_ERROR = re.compile(
    r"(?:an? |the )?(?:unexpected |generic |default |api |http |other |any )*(?:errors?|failure|failed|default|fail|"
    r"response|error (?:response|message|object|payload|status)|unknown|\d\d\d|4xx|5xx|exception)\W*"
    r"(?:response|occurred|object)?\W*|(?:\w+ ){0,3}error response describing why the operation failed\W*",
    re.IGNORECASE,
)
_STATUS = re.compile(r"^\W*(?:HTTP )?status(?: code)?\W*\d{3}\b\W*", re.IGNORECASE)
_FIRST_SENTENCE = re.compile(r".*?(?:[.!?](?=\s)|\n\n|\Z)", re.DOTALL)
# "* 404 ServerNotFound - No such server.": errors that stand in a list under one code
_LISTED_ERROR = re.compile(r"^[ \t]*[*-] (?P<name>[45]\d\d [A-Z]\w+) - (?P<text>.+)$", re.MULTILINE)
_ARTICLE = re.compile(r"\b(?:an?|the)\b", re.IGNORECASE)
_LAST_NOTHING = re.compile(r"\n+(?:None|null|undefined|N/A|TODO|TBD)\.?$")
_HASH = re.compile(r"(?=\D*\d)[0-9a-f]{16,}|(?=\D*\d)[0-9a-f]{8}(?:_[0-9a-f]{4}){3}_[0-9a-f]{12}")
_OK = re.compile(r"^(?:OK|Success)\s*[.:,-]+\s+(?=\w)", re.IGNORECASE)
_SHAPE = re.compile(r"[A-Z]\w+(?:Exception|Fault|Error)")


def description_of(operation: dict[str, Any], item: dict[str, Any], path: str) -> str:
    """Summary and description, each once, as plain Markdown; "" if neither says anything."""
    for part in (operation, item):
        summary, description = (_worded(part.get(key), operation, path) for key in ("summary", "description"))
        if description and not summary and _letters(str(part.get("summary", ""))) == _letters(_id_of(operation)):
            summary = _name_in_words(operation)
        if told := joined(summary, description):
            named = _name_in_words(operation) if part is item else ""  # what the whole path is about is no operation
            return shortened(joined(named, told), LONGEST_DESCRIPTION)
    return ""


def joined(summary: str, description: str) -> str:
    """The summary above the description, unless one says what the other does."""
    short, long = _letters(_ARTICLE.sub("", summary)), _letters(_ARTICLE.sub("", description))
    if not short or long.startswith(short):
        return description
    if not long or short.startswith(long):
        return summary
    words, sentence = _words(summary), _words((_FIRST_SENTENCE.match(description) or [""])[0])
    if (words <= sentence and len(sentence) <= 3 * len(words)) or len(words & sentence) > 0.75 * len(words | sentence):
        return description
    if _words(description) <= words:
        return summary
    first, _, rest = description.partition("\n\n")
    if rest and _letters(_ARTICLE.sub("", first)) in short:
        description = rest
    return f"{summary}\n\n{description}"


def success_text(description: Json) -> str:
    """What a response says about itself; "" if that is no more than that it is one."""
    text = clean(description) if isinstance(description, str) else ""
    text = _OK.sub("", re.sub(r"^2\d\d\b[\s:.,-]*", "", _STATUS.sub("", text)))
    says_nothing = any(pattern.fullmatch(text) for pattern in (_EMPTY_SUCCESS, _NOTHING, CLASS_NAME))
    return "" if says_nothing else shortened(text, LONGEST_ERROR)


def errors_of(responses: dict[str, dict[str, Any]], has_success: bool) -> tuple[ApiError, ...]:
    """The documented errors by status code; those of which nothing is said but that they are errors are left out."""
    found = []
    for code, response in responses.items():
        is_error = code[:1] in ("4", "5") or (code == "default" and has_success)
        text = clean(response["description"]) if isinstance(response.get("description"), str) else ""
        text = _STATUS.sub("", re.sub(rf"^(?:HTTP )?{re.escape(code)}\b[\s:.,-]*", "", text)).strip()
        if is_error and (listed := list(_LISTED_ERROR.finditer(text))):
            found += [ApiError(one["name"], shortened(one["text"].strip(), LONGEST_ERROR)) for one in listed]
            continue
        if not is_error or not text or _EMPTY_ERROR.fullmatch(text) or _NOTHING.fullmatch(text):
            continue
        if _SHAPE.fullmatch(text):  # the name of an exception, for which a made-up status code stands
            found.append(ApiError(text))
        elif code != "default" or not _EMPTY_SUCCESS.fullmatch(text):
            found.append(ApiError(code[:40], shortened(text, LONGEST_ERROR)))
    told = sorted(found, key=lambda error: (not error.name[:1].isdigit(), error.name))
    # the same words for every code are a template's, not this operation's
    if len(told) > 2 and len({(error.description or error.name) for error in told}) == 1:
        return ()
    return tuple(told[:MOST_ERRORS])


def base_path(servers: Json) -> tuple[str, str]:
    """Host and base path of the first server whose address says them; variables have their defaults.

    "https://api.example.com/v1/" gives ("api.example.com", "/v1"). What cannot be told is "".
    """
    for server in servers if isinstance(servers, list) else []:
        url = server.get("url") if isinstance(server, dict) else None
        if not isinstance(url, str) or len(url) > 2_000:
            continue
        variables = server.get("variables")
        for name, variable in list(variables.items())[:50] if isinstance(variables, dict) else ():
            default = variable.get("default") if isinstance(variable, dict) else None
            url = url.replace(f"{{{name}}}", str(default)[:200]) if default not in (None, "") else url
        try:
            parts = urlsplit(text_of(url).strip())
        except ValueError:
            continue
        path = re.sub(r"/{2,}", "/", parts.path).rstrip("/")
        if "{" in path or ".." in path or re.search(r"\s", path) or (path and not path.startswith("/")):
            path = ""
        host = "" if re.search(r"[{}\s]|HOSTNAME|localhost", parts.netloc) else parts.netloc.rpartition("@")[2]
        return host.lower(), path
    return "", ""


def with_base(base: str, path: str) -> str:
    """The base in front of a path that lacks it."""
    return "" if not base or path == base or path.startswith((base + "/", base + "?")) else base


def identifier(operation_id: Json) -> str:
    """What a program would call the operation: the operationId as an identifier; "" if there is none."""
    if not isinstance(operation_id, str):
        return ""
    name = re.sub(r"\W+", "_", text_of(operation_id), flags=re.ASCII).strip("_")[:120]
    if _HASH.fullmatch(name):  # a key of somebody's database
        return ""
    return f"_{name}" if name[:1].isdigit() else name


def _worded(value: Json, operation: dict[str, Any], path: str) -> str:
    """The text, "" if it is an empty phrase, or no more than the operation's own name."""
    text = _LAST_NOTHING.sub("", mended(clean(value))) if isinstance(value, str) else ""
    if _NOTHING.fullmatch(text):
        return ""
    if " " not in text and _letters(text) in (_letters(_id_of(operation)), _letters(path)):
        return ""
    if re.fullmatch(r"(?:GET|POST|PUT|DELETE|PATCH|HEAD)?\s*/\S*", text):
        return ""
    return text


def _id_of(operation: dict[str, Any]) -> str:
    return str(operation.get("operationId", ""))


def _name_in_words(operation: dict[str, Any]) -> str:
    """The operationId as words ("DeleteMessage": "Delete message"); "" if it is not made of a few."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", identifier(operation.get("operationId")))
    return " ".join([words[0].capitalize(), *map(str.lower, words[1:])]) if 2 <= len(words) <= 6 else ""


def _words(text: str) -> frozenset[str]:
    """The words that say something, a verb in the form of a title ("Get") as in that of a sentence ("Gets")."""
    words = re.findall(r"\w+", text.casefold())
    return frozenset(word.removesuffix("s") for word in words if word not in ("a", "an", "the", "all"))


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()
