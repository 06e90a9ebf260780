"""Fields of a config.json: read with their types checked, and written.

A family's config is a list of `Field`s, each of which takes its part of the JSON object to fields of `ModelConfig` and
back. "Absent" below is a field that the file does not have; what it means then is the default of the family's config
class in transformers, and so is whether null means something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from hephaestus_jax.config import ModelConfig
from hephaestus_jax.errors import UserError

Spelling = Literal["old", "new"]
"""How rotary embedding and dtype are written: `rope_theta`, `rope_scaling` and `torch_dtype`, or, since transformers 5,
`rope_parameters` and `dtype`."""

REQUIRED: Any = object()
"""In place of a default: the field must be there."""

AS_ABSENT: Any = object()
"""Null means what an absent field does."""

MAX_SIZE, MAX_COUNT, MAX_NUMBER = 1 << 40, 10_000, 1e30


@dataclass(frozen=True)
class JsonFields:
    """A JSON object whose fields are asked for with their types; `where` is the file, for messages."""

    raw: Mapping[str, Any]
    where: str

    def size(self, name: str, default: Any = REQUIRED) -> int:
        """A whole number above 0; the default where it is absent or null."""
        value = self._value(name, default)
        if value is not default and (type(value) is not int or not 0 < value < MAX_SIZE):
            raise self.wrong(name, "it must be a whole number above 0")
        return value

    def count(self, name: str, default: Any = REQUIRED) -> int:
        """A size of which there are names or lists, and which is therefore not taken beyond any model's."""
        value = self.size(name, default)
        if value > MAX_COUNT:
            raise self.wrong(name, f"more than {MAX_COUNT:,} are not read")
        return value

    def number(self, name: str, default: Any = REQUIRED) -> float:
        """A number above 0; the default where it is absent or null."""
        value = self._value(name, default)
        if value is not default and (type(value) not in (int, float) or not 0 < value < MAX_NUMBER):
            raise self.wrong(name, "it must be a number above 0")
        return float(value)

    def flag(self, name: str, default: Any = REQUIRED) -> bool:
        """True or false; the default where it is absent or null."""
        value = self._value(name, default)
        if type(value) is not bool:
            raise self.wrong(name, "it must be true or false")
        return value

    def mapping(self, name: str) -> Mapping[str, Any]:
        """An object; empty where it is absent or null."""
        value = self._value(name, {})
        if not isinstance(value, dict):
            raise self.wrong(name, "it must be an object")
        return value

    def wrong(self, name: str, words: str) -> UserError:
        """The error that says what is wrong with a field's value."""
        return UserError(f"{self.where}: {name} is {shown_value(self.raw.get(name))}; {words}")

    def missing(self, name: str) -> UserError:
        """The error that says that a field must be there."""
        return UserError(f"{self.where} has no {name}; give the config.json of a whole model")

    def _value(self, name: str, default: Any) -> Any:
        if self.raw.get(name) is None and default is REQUIRED:
            raise self.missing(name)
        return default if self.raw.get(name) is None else self.raw[name]


def shown_value(value: Any) -> str:
    """A value as messages have it: one line, not long."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


class Field(Protocol):
    """Some fields of config.json and the fields of `ModelConfig` that they stand for."""

    def read(self, fields: JsonFields) -> dict[str, Any]:
        """Names of `ModelConfig` fields (those of its experts as "experts.…") and their values.

        Raises:
            UserError: a value is wrong, or asks for something that is not computed here.
        """

    def write(self, model: ModelConfig, spelling: Spelling) -> dict[str, Any]:
        """The fields of config.json; what they cannot say is left out, and noticed when they are read back."""


@dataclass(frozen=True)
class Value:
    """One field of config.json that is one of `ModelConfig`.

    Attributes:
        name: in config.json.
        ours: in `ModelConfig`; "experts.…" in its `ExpertsConfig`.
        kind: "size", "count", "number" or "flag"; see `JsonFields`.
        absent: what it means where the file does not have it, or a function of the file that says so.
        null: what null means; by default what an absent field does.
        renamed: its name in the newer spelling, where that is another.
    """

    name: str
    ours: str
    kind: Literal["size", "count", "number", "flag"] = "size"
    absent: Any = REQUIRED
    null: Any = AS_ABSENT
    renamed: str = ""

    def read(self, fields: JsonFields) -> dict[str, Any]:
        if self.renamed and fields.raw.get(self.renamed) is not None:
            if fields.raw.get(self.name) not in (None, fields.raw[self.renamed]):
                raise fields.wrong(self.name, f"{self.renamed} is something else; keep the one that is meant")
            return {self.ours: getattr(fields, self.kind)(self.renamed)}
        if fields.raw.get(self.name) is not None:
            return {self.ours: getattr(fields, self.kind)(self.name)}
        value = self.null if self.name in fields.raw and self.null is not AS_ABSENT else self.absent
        value = value(fields) if callable(value) else value
        if value is REQUIRED:
            raise fields.missing(self.name)
        return {self.ours: value}

    def write(self, model: ModelConfig, spelling: Spelling) -> dict[str, Any]:
        value: Any = model
        for part in self.ours.split("."):
            value = getattr(value, part, None)
        name = self.renamed if self.renamed and spelling == "new" else self.name
        return {name: None if value == self.null else value}
