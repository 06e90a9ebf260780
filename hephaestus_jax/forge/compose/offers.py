"""APIs as tools on offer: names, schemas of a bearable size, and others to stand beside the right one."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

from hephaestus_jax.forge.compose.settings import Draw
from hephaestus_jax.forge.compose.wording import name_words
from hephaestus_jax.formats.records import ApiDoc, Json, Tool, record_id
from hephaestus_jax.formats.schema_text import pruned

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DESCRIPTION = 400  # characters of a tool's description
_SHAPES = ((3, 300), (2, 200), (1, 140))  # levels of nested fields, characters of a description; the first that fits
_COMMONEST = 200  # APIs that share a word; a word of more says nothing about nearness
_NEAR = 24  # near APIs that are kept as candidates


class Offer:
    """An API and the tool it makes, derived when first asked for; one object for each API."""

    def __init__(self, doc: ApiDoc, tool_characters: int) -> None:
        self.doc = doc
        self._budget = tool_characters

    @cached_property
    def id(self) -> str:
        return record_id(self.doc)

    @cached_property
    def name(self) -> str:
        return tool_name(self.doc)

    @cached_property
    def group(self) -> str:
        """APIs of one group work on the same things: a service, a specification, a family of commands."""
        if self.doc.interface == "cli":
            return " ".join(self.doc.name.split()[:2])
        return f"{self.doc.provenance.source}:{self.doc.provenance.path.partition(':')[0]}"

    @cached_property
    def words(self) -> frozenset[str]:
        """Words that tell what the API is about."""
        text = f"{self.doc.function or self.doc.name} {self.summary}"
        return frozenset(_stem(word) for part in text.split() for word in name_words(part) if len(word) > 2)

    @cached_property
    def summary(self) -> str:
        """The first paragraph of the description."""
        return " ".join(self.doc.description.strip().split("\n\n")[0].split())

    @cached_property
    def tool(self) -> Tool:
        used = {name for example in self.doc.examples for name in example.arguments or ()}
        return Tool(self.name, _cut(self.summary, _DESCRIPTION), tool_schema(self.doc.parameters, used, self._budget))


def tool_name(doc: ApiDoc) -> str:
    """What the API is called as a tool: its function, else its name in the letters that tool names may have."""
    if doc.function and NAME.fullmatch(doc.function):
        return doc.function
    name = re.sub(r"[^A-Za-z0-9]+", "_", doc.function or doc.name).strip("_")
    if not doc.function:
        name = name.lower()
        verb, _, rest = name.partition("_")
        while doc.interface == "rest" and len(name) > 64 and "_" in rest:  # the end of a path says most
            rest = rest.partition("_")[2]
            name = f"{verb}_{rest}"
    if NAME.fullmatch(name):
        return name
    mark = hashlib.blake2b(doc.name.encode("utf-8", "replace"), digest_size=3).hexdigest()
    return f"{name[:57].rstrip('_')}_{mark}" if name else f"function_{mark}"


def tool_schema(parameters: Mapping[str, Json], used: Collection[str], characters: int) -> dict[str, Json]:
    """The schema as a tool carries it; where it is too long, deep fields, then optional parameters, are left out.

    Parameters that are required or `used` are always kept, so calls that fitted the whole schema fit this one.
    """
    made: dict[str, Json] = {}
    for depth, length in _SHAPES:
        made = _tidied(pruned(parameters, depth), length)
        if len(json.dumps(made, ensure_ascii=False)) <= characters:
            return made
    properties = dict(made.get("properties", {}))
    size = len(json.dumps(made, ensure_ascii=False))
    keep = {*used, *made.get("required", ())}
    for name in reversed(list(properties)):
        if size <= characters:
            break
        if name not in keep:
            size -= len(json.dumps(properties.pop(name), ensure_ascii=False)) + len(name) + 6
    return {**made, "properties": properties}


def _tidied(schema: Json, length: int) -> Json:
    """A schema with descriptions cut and without the marks of our own readers."""
    if not isinstance(schema, Mapping):
        return schema
    kept = {key: value for key, value in schema.items() if not key.startswith("x-")}
    if isinstance(description := kept.get("description"), str):
        kept["description"] = _cut(" ".join(description.split()), length)
    if isinstance(properties := kept.get("properties"), Mapping):
        kept["properties"] = {name: _tidied(value, length) for name, value in properties.items()}
    for key in ("items", "additionalProperties", "not"):
        if key in kept:
            kept[key] = _tidied(kept[key], length)
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        if isinstance(parts := kept.get(key), list | tuple):
            kept[key] = [_tidied(part, length) for part in parts]
    if "properties" not in kept and kept.get("additionalProperties") is False and "properties" in schema:
        del kept["additionalProperties"]
    return kept


def _cut(text: str, length: int) -> str:
    """The text's first sentences, at most `length` characters."""
    if len(text) <= length:
        return text
    end = max(text.rfind(mark, 0, length) for mark in (". ", "! ", "? "))
    return text[: end + 1] if end > length // 3 else text[:length].rsplit(" ", 1)[0].rstrip(",;:") + " …"


def _stem(word: str) -> str:
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("s", "")):
        if word.endswith(ending) and not word.endswith("ss") and len(word) > 3:
            return word.removesuffix(ending) + instead
    return word


class Shelf:
    """Tools to stand beside the right ones: near ones of the same provider, far ones of others."""

    def __init__(self, own: Sequence[Offer], others: Sequence[Offer]) -> None:
        """`own`: the provider's APIs, sorted; `others`: those of other providers, sorted."""
        self._own = own
        self._others = others
        self._holders: dict[str, list[int]] = {}
        for place, offer in enumerate(own):
            for word in sorted(offer.words):
                self._holders.setdefault(word, []).append(place)
        self._candidates: dict[Offer, list[Offer]] = {}

    def near(self, offer: Offer) -> list[Offer]:
        """The provider's other APIs that share the most and rarest words with this one, nearest first."""
        if (known := self._candidates.get(offer)) is not None:
            return known
        scores: dict[int, float] = defaultdict(float)
        for word in sorted(offer.words, key=lambda word: (len(self._holders.get(word, ())), word))[:8]:
            holders = self._holders.get(word, ())
            if len(holders) <= _COMMONEST:
                weight = math.log(1 + len(self._own) / (1 + len(holders)))
                for place in holders:
                    scores[place] += weight
        for place in scores:
            if self._own[place].group == offer.group:
                scores[place] *= 2
        best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[: _NEAR + 4]
        found = [self._own[place] for place, _ in best if self._own[place].doc is not offer.doc][:_NEAR]
        self._candidates[offer] = found
        return found

    def beside(self, right: Sequence[Offer], count: int, draw: Draw, strict: bool = False) -> list[Offer]:
        """`count` other tools (fewer if there are not so many) that are told apart from the right ones.

        With `strict` none of them does anything like what the right ones do.
        """
        names = {offer.name for offer in right}
        summaries = {offer.summary.lower() for offer in right}
        chosen: list[Offer] = []

        def take(candidates: Sequence[Offer], wanted: int, apart: bool = strict) -> None:
            for offer in candidates:
                if len(chosen) >= wanted:
                    return
                alike = offer.name in names or (offer.summary.lower() in summaries and offer.summary)
                if alike or not offer.doc.description or (apart and any(_does_alike(offer, r) for r in right)):
                    continue
                names.add(offer.name)
                summaries.add(offer.summary.lower())
                chosen.append(offer)

        near = [offer for one in right for offer in self.near(one)[: max(count, 4) * 2]]
        take(draw.shuffled(near[: count * 3]), round(count * 0.6))
        far = draw.chance(0.5)
        if not far and len(self._own) >= 20:
            take(draw.sample(self._own, count), count)
        take(draw.sample(self._others, 2 * count), count, apart=True)  # another provider's may well be the same API
        take(draw.sample(self._own, 2 * count), count)
        return chosen


def _does_alike(one: Offer, other: Offer) -> bool:
    """Whether two APIs may do much the same, going by their words."""
    shared = len(one.words & other.words)
    return shared * 3 > min(len(one.words), len(other.words))
