"""Rotary frequencies in config.json: `rope_theta` and `rope_scaling`, or `rope_parameters`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hephaestus_jax.config import LinearRopeScaling, ModelConfig, RopeScaling, YarnRopeScaling
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.families.fields import JsonFields, Spelling, shown_value
from hephaestus_jax.hf.safetensors_files import shown

ORIGINAL = "original_max_position_embeddings"
Scaling = RopeScaling | LinearRopeScaling | YarnRopeScaling

# Names in the files, ours, and what an absent one means; `...` where it must be there.
_SCALINGS: dict[str, tuple[type, dict[str, tuple[str, Any]]]] = {
    "llama3": (RopeScaling, {
        "factor": ("factor", ...), "low_freq_factor": ("low_freq_factor", ...),
        "high_freq_factor": ("high_freq_factor", ...), ORIGINAL: ("original_max_positions", None),
    }),
    "linear": (LinearRopeScaling, {"factor": ("factor", ...)}),
    "yarn": (YarnRopeScaling, {
        "factor": ("factor", ...), "beta_fast": ("beta_fast", 32.0), "beta_slow": ("beta_slow", 1.0),
        "attention_factor": ("attention_factor", 0.0), ORIGINAL: ("original_max_positions", None),
    }),
}  # fmt: skip
_PLAIN = ("rope_type", "type", "rope_theta", "partial_rotary_factor")
_KEPT_AS = {"truncate": True}
"""What may be there besides, if it says this: whole pairs begin and end YaRN's ramp."""


@dataclass(frozen=True)
class Positions:
    """The longest position and the rotary frequencies, in both spellings.

    Attributes:
        longest: what an absent `max_position_embeddings` means.
        theta: what an absent `rope_theta` means.
    """

    longest: int
    theta: float = 10_000.0

    def read(self, fields: JsonFields) -> dict[str, Any]:
        longest = fields.size("max_position_embeddings", self.longest)
        rope = JsonFields(_either(fields), f"{fields.where}: {_spelled(fields)}")
        theta, scaling = _rotary(rope, fields, longest, "rope_theta", self.theta)
        return {"max_positions": longest, "rope_theta": theta, "rope_scaling": scaling}

    def write(self, model: ModelConfig, spelling: Spelling) -> dict[str, Any]:
        return {"max_position_embeddings": model.max_positions} | _frequencies(model, spelling)


@dataclass(frozen=True)
class PositionsByLayer:
    """The same of a model whose sliding layers have frequencies of their own, which are not scaled (Gemma 3).

    Attributes:
        longest: what an absent `max_position_embeddings` means.
        theta: what an absent base means, of the layers that see everything.
        sliding_theta: likewise of the sliding ones.
    """

    longest: int
    theta: float
    sliding_theta: float

    def read(self, fields: JsonFields) -> dict[str, Any]:
        longest = fields.size("max_position_embeddings", self.longest)
        old, new = fields.mapping("rope_scaling"), _either(fields) if fields.mapping("rope_parameters") else {}
        where = f"{fields.where}: {_spelled(fields)}"
        if old.get("type") and not old.get("rope_type"):
            # which transformers leaves unread in this family, and the factor with it
            raise UserError(f"{where}: type is {shown_value(old['type'])}; say it as rope_type, or take it out")
        _no_others(JsonFields(new, where), ("full_attention", "sliding_attention"), "")
        by_kind = JsonFields(new or {"full_attention": old}, where)
        full, sliding = (
            JsonFields(by_kind.mapping(kind), f"{where}: {kind}" if new else where)
            for kind in ("full_attention", "sliding_attention")
        )
        theta, scaling = _rotary(full, fields, longest, "rope_theta", self.theta)
        sliding_theta, unwanted = _rotary(sliding, fields, longest, "rope_local_base_freq", self.sliding_theta)
        if unwanted is not None:
            raise UserError(f"{sliding.where}: rope_type is {shown_value(sliding.raw.get('rope_type'))}; only 'default'"
                            " is computed here in sliding layers")  # fmt: skip
        return {"max_positions": longest, "rope_theta": theta, "rope_scaling": scaling,
                "sliding_rope_theta": sliding_theta}  # fmt: skip

    def write(self, model: ModelConfig, spelling: Spelling) -> dict[str, Any]:
        sliding = model.sliding_rope_theta or model.rope_theta
        if spelling == "old":
            found = _frequencies(model, spelling) | {"rope_local_base_freq": sliding}
        else:
            full = _frequencies(model, spelling)["rope_parameters"]
            plain = {"rope_type": "default", "rope_theta": sliding}
            found = {"rope_parameters": {"full_attention": full, "sliding_attention": plain}}
        return {"max_position_embeddings": model.max_positions} | found


def spelling_of(raw: Mapping[str, Any]) -> Spelling:
    """How a config.json spells rotary frequencies."""
    return "new" if raw.get("rope_parameters") else "old"


def _frequencies(model: ModelConfig, spelling: Spelling) -> dict[str, Any]:
    scaling = _scaling_json(model.rope_scaling)
    if spelling == "old":
        return {"rope_theta": model.rope_theta, "rope_scaling": scaling}
    return {"rope_parameters": {**(scaling or {"rope_type": "default"}), "rope_theta": model.rope_theta}}


def _scaling_json(scaling: Scaling | None) -> dict[str, Any] | None:
    for kind, (made, names) in _SCALINGS.items():
        if type(scaling) is made:
            values = {theirs: getattr(scaling, ours) for theirs, (ours, _) in names.items()}
            return {"rope_type": kind} | {name: value for name, value in values.items() if value}  # 0 is absent
    return None


def _spelled(fields: JsonFields) -> str:
    return "rope_parameters" if fields.raw.get("rope_parameters") else "rope_scaling"


def _either(fields: JsonFields) -> Mapping[str, Any]:
    old, new = fields.mapping("rope_scaling"), fields.mapping("rope_parameters")
    if old and new:
        raise UserError(f"{fields.where} has rope_scaling and rope_parameters; keep the one that is meant")
    return old or new


def _rotary(
    rope: JsonFields, fields: JsonFields, longest: int, outside: str, absent: float
) -> tuple[float, Scaling | None]:
    """Base and scaling."""
    theta, scaling = _theta(rope, fields, outside, absent), _scaling(rope, fields, longest)
    if isinstance(scaling, YarnRopeScaling) and theta <= 1:
        raise UserError(f"{fields.where}: {outside} is {theta}; with rope_type 'yarn' it must be above 1")
    return theta, scaling


def _theta(rope: JsonFields, fields: JsonFields, outside: str, absent: float) -> float:
    """The base, `rope_theta` inside the object or a field of the file itself."""
    places = ((rope, "rope_theta"), (fields, outside))
    thetas = {where.number(name) for where, name in places if where.raw.get(name) is not None}
    if len(thetas) > 1:
        raise UserError(f"{fields.where} has two values of {outside}; keep the one that is meant")
    return thetas.pop() if thetas else absent


def _scaling(rope: JsonFields, fields: JsonFields, longest: int) -> Scaling | None:
    kind = rope.raw.get("rope_type") or rope.raw.get("type") or "default"
    if kind != "default" and (type(kind) is not str or kind not in _SCALINGS):
        raise UserError(
            f"{rope.where}: rope_type is {shown_value(kind)}; only 'default', {', '.join(map(repr, _SCALINGS))} are"
            " computed here"
        )
    made, names = (None, {}) if kind == "default" else _SCALINGS[kind]
    _no_others(rope, (*_PLAIN, *names), f" for rope_type {kind!r}")
    if rope.raw.get("partial_rotary_factor") not in (None, 1):
        raise rope.wrong("partial_rotary_factor", "only whole heads are turned here")
    if made is None:
        return None
    values: dict[str, Any] = {}
    for theirs, (ours, absent) in names.items():
        if theirs == ORIGINAL:
            values[ours] = _original(rope, fields, longest)
        else:
            values[ours] = rope.number(theirs) if absent is ... else rope.number(theirs, absent)
    if kind == "yarn" and values["factor"] < 1:
        raise rope.wrong("factor", "it must be 1 or more")
    return made(**values)


def _original(rope: JsonFields, fields: JsonFields, longest: int) -> int:
    found = {where.size(ORIGINAL) for where in (rope, fields) if where.raw.get(ORIGINAL) is not None}
    if len(found) > 1:
        raise UserError(f"{fields.where} has two values of {ORIGINAL}; keep the one that is meant")
    return found.pop() if found else longest


def _no_others(rope: JsonFields, known: tuple[str, ...], words: str) -> None:
    for name, value in rope.raw.items():
        if name not in known and value is not None and not (name in _KEPT_AS and value is _KEPT_AS[name]):
            raise UserError(f"{rope.where}: {shown(name)} is not known{words}; remove it if it means nothing")
