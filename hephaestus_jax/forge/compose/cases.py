"""Documented examples that can be composed: a task, a call that fits its schema, and what it returned."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hephaestus_jax.forge.compose.checks import argument_faults
from hephaestus_jax.forge.compose.offers import Offer
from hephaestus_jax.forge.compose.replies import output_of
from hephaestus_jax.forge.compose.settings import ComposeConfig
from hephaestus_jax.forge.compose.tasks import task_of
from hephaestus_jax.forge.compose.wording import name_words, scalars
from hephaestus_jax.formats.records import ApiDoc, Json, canonical_json

# Names of what must not be in a corpus, even as an example; ids, names and pages of such things are not meant.
_SECRET = re.compile(
    r"(?i)(passwo?r?d|account_?-?key|shared_?-?key|connection_?-?string|passwd|passphrase|secret(?!_?-?(id|arn|name|version|s?$))|api_?-?key$|access_?-?key(?!_?-?id)|"
    r"private_?-?key|credential|authorization|(access|refresh|auth|session|bearer|id|security)_?-?token$|^token$|^auth$)"
)
# Values that stand for a value: what a schema says rather than what a call would hold.
_PLACEHOLDER = re.compile(
    r"(?i)(string|str|text|value|example|null|none|undefined|\.\.\.|…|<[^<>]*>|\{\{?[^{}]*\}\}?|x{3,})"
)
_THING = re.compile(r"^(?:GET|PUT|PATCH|DELETE) .*/\{([^{}/]+)\}$")
# What generators of examples write where text is due.
_LATIN = re.compile(
    r"(?i)\b(lorem|ipsum|dolor\w*|quasi|nihil|volupta\w+|necessitatibus|quia|itaque|nemo|rerum|omnis|quis|aut|eius|"
    r"perspiciatis|consequ[au]\w+|similique|fugiat|labore|asperiores|repellendus|molestia[es]|sint|veniam|nostrud)\b"
)
_HOLE = re.compile(
    r"<[A-Za-z]+(?:[ _-][A-Za-z]+)+>|\[(?:your|insert) [^\]]*\]|\{[a-z_-]{2,}\}|(?<![a-z0-9])your_[a-z_]+", re.I
)
_OPEN = re.compile(r"<[A-Za-z]+(?:[ _-][A-Za-z]+)+(?:-\d)?>|(?<![a-z0-9])your_[a-z_]+", re.I)  # likewise in results
_NEXT_PAGE = re.compile(r"(?i)(next|page|pagination|continuation|starting)_?-?token|^(start_?-?)?(marker|cursor)$")
_WRAPPERS = ("data", "result", "response", "item")
# Arguments that the result rightly answers with other values.
_PAGE = re.compile(r"(?i)token|page|limit|offset|cursor|marker|max|size|count|^code$|status|state|message|data|query")


@dataclass(frozen=True)
class Case:
    """One documented call of one API."""

    offer: Offer  # the API as a tool
    number: int  # which example of the API it is
    task: str  # "create a VPC"
    arguments: Mapping[str, Json]
    result: str | None  # as documented; None where none is
    output: Json  # the result parsed

    @property
    def doc(self) -> ApiDoc:
        return self.offer.doc

    @property
    def key(self) -> str:
        """Tells cases apart, on every machine alike."""
        return f"{self.offer.id}:{self.number}"


def cases_of(offer: Offer, config: ComposeConfig) -> Iterator[Case]:
    """The documented calls of an API that are fit to be shown; equal calls once."""
    seen = set()
    for number, example in enumerate(offer.doc.examples):
        if example.arguments is None or not _is_fit(offer.doc, example.arguments, example.result, config):
            continue
        arguments = whole_numbers(example.arguments)
        call = canonical_json(arguments)
        if call in seen or argument_faults(arguments, offer.tool.parameters):
            continue
        seen.add(call)
        task = task_of(offer.doc, example)
        if task is not None:
            result = example.result if example.result and not _is_hollow(output_of(example.result)) else None
            yield Case(offer, number, task, arguments, result, output_of(result))


def _is_fit(doc: ApiDoc, arguments: Mapping[str, Json], result: str | None, config: ComposeConfig) -> bool:
    """Whether a call and its result are small, free of secrets and not made of placeholders."""
    try:
        size = len(json.dumps(arguments, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return False
    if size > config.max_arguments or len(result or "") > config.max_result:
        return False
    if any(isinstance(value, str) and _names_itself(name, value) for name, value in arguments.items()):
        return False
    if is_filler(arguments) or any(isinstance(value, str) and is_placeholder(value) for value in scalars(arguments)):
        return False
    if any(isinstance(value, str) and _NEXT_PAGE.search(name) for name, value in arguments.items()):
        return False  # nobody begins with the second page
    output = output_of(result)
    if any(isinstance(value, str) and _OPEN.search(value) for value in scalars(output)):
        return False
    return not (holds_secret(arguments) or holds_secret(output) or is_filler(output) or belies(doc, arguments, output))


def belies(doc: ApiDoc, arguments: Mapping[str, Json], output: Json) -> bool:
    """Whether the documented result names something else than what the call named, as careless examples do."""
    if not isinstance(output, Mapping):
        return False
    inner = [v for key, v in output.items() if isinstance(v, Mapping) and (len(output) == 1 or key in _WRAPPERS)]
    told = {"".join(name_words(name)): value for part in (output, *inner) for name, value in part.items()}
    body = arguments.get("body")
    named = {**(body if isinstance(body, Mapping) else {}), **arguments}
    asked = {"".join(name_words(name)): value for name, value in named.items() if not _PAGE.search(name)}
    if (found := _THING.search(doc.name)) and "id" not in asked:  # "GET /pets/{pet_id}" returns the "id" of that pet
        asked["".join(name_words(found[1])[-1:])] = arguments.get(found[1])
    return any(
        isinstance(value, str | int)
        and isinstance(said := told.get(name), str | int)
        and not isinstance(said, bool)
        and str(said).lower() != str(value).lower()
        for name, value in asked.items()
    )


def whole_numbers(value: Json) -> Json:
    """The value with 4 for 4.0, which is the same in JSON: a specification's tools write whole numbers either way."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        return {key: whole_numbers(item) for key, item in value.items()}
    return [whole_numbers(item) for item in value] if isinstance(value, list) else value


def _is_hollow(output: Json) -> bool:
    """Whether a result only names what it should hold: {"devicePool": {}}."""
    return isinstance(output, Mapping) and bool(output) and all(value == {} for value in output.values())


def _names_itself(name: str, value: str) -> bool:
    """Whether a value is but the name of its parameter, or the last word of it: "eventId": "id"."""
    words, said = name_words(name), name_words(value)
    return bool(said) and said in (words, words[-1:])


def is_placeholder(text: str) -> bool:
    """Whether a string stands for a value, wholly or in a part: "string", "arn:aws:iam::<account_id>:user"."""
    return bool(_PLACEHOLDER.fullmatch(text.strip()) or _HOLE.search(text))


def holds_secret(value: Json) -> bool:
    """Whether a key within names a password, a private key or an access token that is given in the clear."""
    if isinstance(value, Mapping):
        return any(
            (isinstance(item, str) and len(item) > 1 and bool(_SECRET.search(key))) or holds_secret(item)
            for key, item in value.items()
        )
    if isinstance(value, str):
        return "PRIVATE KEY-----" in value
    return isinstance(value, list | tuple) and any(map(holds_secret, value))


def is_filler(output: Json) -> bool:
    """Whether most of a result is placeholders, as generators of examples fill it."""
    values = [value for value in scalars(output) if isinstance(value, str)]
    filled = sum(bool(_PLACEHOLDER.fullmatch(value.strip()) or _LATIN.search(value)) for value in values)
    return bool(values) and filled * 2 >= len(values)
