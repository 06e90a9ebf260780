"""What the attention of each layer sees, as config.json says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hephaestus_jax.config import ModelConfig
from hephaestus_jax.hf.families.fields import JsonFields, Spelling

Kinds = tuple[str, ...]
_NAMES = {"full_attention": "full", "sliding_attention": "sliding"}
_TYPES = {ours: theirs for theirs, ours in _NAMES.items()} | {"unrotated": "full_attention"}


def shortest_pattern(kinds: Kinds) -> Kinds:
    """The shortest pattern that gives these kinds of layers when it is repeated."""
    for length in range(1, len(kinds) + 1):
        if (kinds[:length] * -(-len(kinds) // length))[: len(kinds)] == kinds:
            return kinds[:length]
    return kinds


@dataclass(frozen=True)
class EveryLayer:
    """The same in every layer: everything, or what `sliding_window` says where the family has such a field.

    Attributes:
        window: what an absent `sliding_window` means, 0 for everything; None where the field may not be set.
        switch: whether the field counts only if `use_sliding_window` is true.
    """

    window: int | None = None
    switch: bool = False

    def read(self, fields: JsonFields) -> dict[str, Any]:
        for name in ("sliding_window", "use_sliding_window") if self.window is None else ():
            if fields.raw.get(name) not in (None, False):
                raise fields.wrong(name, "only a model without it is computed here")
        window = _window(fields, self.window or 0) if not self.switch or _switched_on(fields) else 0
        kind = "sliding" if window else "full"
        stated = _stated(fields)
        if stated is not None and set(stated) != {kind}:
            raise fields.wrong("layer_types", f"every layer is computed as {_TYPES[kind]!r} here")
        return {"layer_pattern": (kind,), "sliding_window": window}

    def write(self, model: ModelConfig, spelling: Spelling) -> dict[str, Any]:
        found: dict[str, Any] = {} if self.window is None else {"sliding_window": model.sliding_window or None}
        return found | ({"use_sliding_window": bool(model.sliding_window)} if self.switch else {})


@dataclass(frozen=True)
class LateWindow:
    """A window from layer `max_window_layers` on, if `use_sliding_window` (Qwen), unless `layer_types` says which."""

    window: int
    first: int

    def read(self, fields: JsonFields) -> dict[str, Any]:
        window = _window(fields, self.window) if _switched_on(fields) else 0
        count, first = fields.count("num_hidden_layers"), _whole(fields, "max_window_layers", self.first)
        kinds = _stated(fields)
        if kinds is None:
            kinds = tuple("sliding" if window and number >= first else "full" for number in range(count))
        return _layers(fields, kinds, window)

    def write(self, model: ModelConfig, spelling: Spelling) -> dict[str, Any]:
        kinds = model.layer_kinds
        found: dict[str, Any] = {
            "use_sliding_window": bool(model.sliding_window),
            "sliding_window": model.sliding_window or None,
            "max_window_layers": kinds.index("sliding") if "sliding" in kinds else len(kinds),
        }
        return found | {"layer_types": [_TYPES[kind] for kind in kinds]}


@dataclass(frozen=True)
class Alternating:
    """Sliding layers with one that sees everything as every nth, unless `layer_types` says which (Gemma).

    Attributes:
        window: what an absent `sliding_window` means.
        every: n.
        name: field that says n, if the family has one.
    """

    window: int
    every: int
    name: str = ""

    def read(self, fields: JsonFields) -> dict[str, Any]:
        if "sliding_window" in fields.raw and fields.raw["sliding_window"] is None:
            raise fields.wrong("sliding_window", "it must be a whole number above 0")
        every = fields.size(self.name, self.every) if self.name else self.every
        kinds = _stated(fields)
        if kinds is None:
            numbers = range(1, fields.count("num_hidden_layers") + 1)
            kinds = tuple("sliding" if number % every else "full" for number in numbers)
        return _layers(fields, kinds, _window(fields, self.window))

    def write(self, model: ModelConfig, spelling: Spelling) -> dict[str, Any]:
        pattern = shortest_pattern(model.layer_kinds)
        found: dict[str, Any] = {"layer_types": [_TYPES[kind] for kind in model.layer_kinds]}
        if model.sliding_window:
            found["sliding_window"] = model.sliding_window
        if self.name and pattern == ("sliding",) * (len(pattern) - 1) + ("full",):
            found[self.name] = len(pattern)
        return found


@dataclass(frozen=True)
class SomeUnrotated:
    """Every nth layer without rotary positions, unless `no_rope_layers` says which: 1 is with, 0 without (SmolLM3)."""

    every: int

    def read(self, fields: JsonFields) -> dict[str, Any]:
        count = fields.count("num_hidden_layers")
        if fields.raw.get("use_sliding_window") and fields.raw.get("sliding_window") is not None:
            raise fields.wrong("use_sliding_window", "only a model without it is computed here")
        if "sliding" in (_stated(fields) or ()):
            raise fields.wrong("layer_types", "only 'full_attention' is computed here")
        every = fields.size("no_rope_layer_interval", self.every)
        rotated = fields.raw.get("no_rope_layers")
        if rotated is None:
            rotated = [int(number % every != 0) for number in range(1, count + 1)]
        if not isinstance(rotated, list) or len(rotated) < count or any(one not in (0, 1) for one in rotated):
            raise fields.wrong("no_rope_layers", f"it must be a list of 0 and 1, one for each of {count} layers")
        kinds = tuple("full" if one else "unrotated" for one in rotated[:count])
        return {"layer_pattern": shortest_pattern(kinds), "sliding_window": 0}

    def write(self, model: ModelConfig, spelling: Spelling) -> dict[str, Any]:
        kinds = model.layer_kinds
        types = [_TYPES[kind] for kind in kinds]
        return {"no_rope_layers": [int(kind != "unrotated") for kind in kinds], "layer_types": types}


def _layers(fields: JsonFields, kinds: Kinds, window: int) -> dict[str, Any]:
    sliding = "sliding" in kinds
    if sliding and not window:
        raise fields.wrong("layer_types", "layers with sliding attention need sliding_window (and use_sliding_window)")
    return {"layer_pattern": shortest_pattern(kinds), "sliding_window": window if sliding else 0}


def _stated(fields: JsonFields) -> Kinds | None:
    """What `layer_types` says of each layer, if it is there."""
    types = fields.raw.get("layer_types")
    if types is None:
        return None
    count = fields.count("num_hidden_layers")
    if not isinstance(types, list) or len(types) != count or any(str(kind) not in _NAMES for kind in types):
        raise fields.wrong("layer_types", f"it must say {' or '.join(map(repr, _NAMES))} of each of {count} layers")
    return tuple(_NAMES[kind] for kind in types)


def _window(fields: JsonFields, absent: int) -> int:
    """0 for none, which is what null means."""
    if fields.raw.get("sliding_window") is not None:
        return fields.size("sliding_window")
    return 0 if "sliding_window" in fields.raw else absent


def _switched_on(fields: JsonFields) -> bool:
    return fields.flag("use_sliding_window", False)


def _whole(fields: JsonFields, name: str, absent: int) -> int:
    """A whole number, 0 among them."""
    return 0 if fields.raw.get(name) == 0 and type(fields.raw[name]) is int else fields.size(name, absent)
