"""References inside one document; what lies outside it is never looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Json

if TYPE_CHECKING:  # the package of the sources imports this one
    from hephaestus_jax.forge.sources.source import SourceFile

LONGEST_CHAIN = 16  # references that lead to a reference
_MISSING = object()


class References:
    """Follows the local references of a document; those it does not follow are set aside once each."""

    def __init__(self, document: dict[str, Any], file: SourceFile, quarantine: Quarantine) -> None:
        self.document = document
        self._file, self._quarantine = file, quarantine
        self._found: dict[str, Any] = {}

    def target(self, reference: str) -> Json:
        """What a reference names; None, with the reason set aside, where it cannot be had."""
        if reference not in self._found:
            self._found[reference] = self._look_up(reference)
        return self._found[reference]

    def resolved(self, value: Json) -> dict[str, Any]:
        """The object itself, or the one that its `$ref` leads to; {} if that is none."""
        for _ in range(LONGEST_CHAIN):
            if not isinstance(value, dict):
                return {}
            if not isinstance(reference := value.get("$ref"), str):
                return value
            value = self.target(reference)
        self._quarantine.add("circular reference", self._file.place(), str(value)[:200])
        return {}

    def _look_up(self, reference: str) -> Json:
        if not reference.startswith("#"):
            self._quarantine.add("remote reference", self._file.place(), reference)
            return None
        value: Json = self.document
        for part in unquote(reference[1:]).split("/")[1:]:
            value = _step(value, part.replace("~1", "/").replace("~0", "~"))
            if value is _MISSING:
                self._quarantine.add("dangling reference", self._file.place(), reference)
                return None
        return value


def _step(value: Json, key: str) -> Any:
    if isinstance(value, dict):
        return value.get(key, _MISSING)
    if isinstance(value, list) and key.isdecimal() and len(key) < 9 and int(key) < len(value):
        return value[int(key)]
    return _MISSING
