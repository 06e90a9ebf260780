"""What an agent can know: what it was told so far."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from hephaestus_jax.formats.records import Json


@dataclass
class Seen:
    """All that an agent has been told so far, in lower case; `names` is what the calls of its episode name."""

    names: frozenset[str] = frozenset()
    texts: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Something more."""
        self.texts.append(text.lower())

    def knows(self, value: Json) -> bool:
        """Whether a value was named, as a whole word."""
        text = re.escape(str(value).lower())
        return any(re.search(rf"(?<!\w){text}(?!\w)", told) for told in reversed(self.texts))
