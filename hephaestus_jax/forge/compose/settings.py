"""What is composed, and how much of it; draws that depend on a seed and a key alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from hephaestus_jax.errors import UserError

KINDS = (
    "single",
    "distractors",
    "missing_function",
    "missing_parameter",
    "parallel",
    "dependent",
    "multi_turn",
    "command",
)

_T = TypeVar("_T")


@dataclass(frozen=True)
class ComposeConfig:
    """Limits and shares of composition.

    Attributes:
        seed: of every draw.
        distractors: fewest and most other tools on offer beside the right ones.
        alone: share of single calls whose right tool is the only one on offer.
        missing_function: declines per example call.
        missing_parameter: asks per example call that has a required argument.
        parallel: parallel calls per example call.
        multi_turn: conversations of several requests per example call.
        bash: share of command-line examples that are run as bash; the others are calls with arguments, where the
            example states its arguments.
        closing: share of answered requests that the agent closes with words about the result.
        max_dependent: chains of two calls that begin with one API.
        max_parallel: calls of one turn.
        max_turns: requests of one conversation.
        max_per_api: trajectories that begin with one API.
        max_arguments: characters of a call's arguments as JSON; larger calls are left out.
        max_result: characters of a result; larger ones are left out.
        tool_characters: of a tool's JSON Schema; optional parameters that no example uses give way.
    """

    seed: int = 0
    distractors: tuple[int, int] = (2, 8)
    alone: float = 0.15
    missing_function: float = 0.1
    missing_parameter: float = 0.2
    parallel: float = 0.2
    multi_turn: float = 0.2
    bash: float = 0.5
    closing: float = 0.6
    max_dependent: int = 2
    max_parallel: int = 3
    max_turns: int = 4
    max_per_api: int = 8
    max_arguments: int = 1_200
    max_result: int = 4_000
    tool_characters: int = 2_000

    def __post_init__(self) -> None:
        low, high = self.distractors
        if not 1 <= low <= high:
            raise UserError(f"composition: distractors are {low} to {high}; give two numbers from 1 on, in order")
        for name in ("alone", "missing_function", "missing_parameter", "parallel", "multi_turn", "bash", "closing"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"composition: {name} is {getattr(self, name)}; a share lies between 0 and 1")
        if self.max_parallel < 2 or self.max_turns < 2:
            raise UserError("composition: max_parallel and max_turns must be 2 or more; set a share to 0 for none")
        if min(self.max_dependent, self.max_per_api, self.max_arguments, self.max_result, self.tool_characters) < 0:
            raise UserError("composition: a limit is negative; set it to 0 or more")


class Draw:
    """A sequence of draws that depends on the seed and the key alone, on every machine and Python alike."""

    def __init__(self, seed: int, *key: object) -> None:
        self._state = hashlib.blake2b("\0".join(map(str, (seed, *key))).encode("utf-8", "replace"), digest_size=32)
        self._block = b""

    def _next(self) -> int:
        if not self._block:
            self._state.update(b"+")
            self._block = self._state.digest()
        number, self._block = int.from_bytes(self._block[:8], "big"), self._block[8:]
        return number

    def below(self, bound: int) -> int:
        """A number from 0 to bound - 1."""
        return self._next() % bound

    def between(self, low: int, high: int) -> int:
        """A number from low to high, both included."""
        return low + self.below(high - low + 1)

    def chance(self, share: float) -> bool:
        """True in `share` of the draws."""
        return self._next() < share * 2**64

    def pick(self, choices: Sequence[_T]) -> _T:
        """One of the choices."""
        return choices[self.below(len(choices))]

    def shuffled(self, items: Sequence[_T]) -> list[_T]:
        """The items in another order."""
        return [item for _, _, item in sorted((self._next(), number, item) for number, item in enumerate(items))]

    def sample(self, items: Sequence[_T], count: int) -> list[_T]:
        """`count` different items (all, if there are fewer)."""
        if count >= len(items):
            return self.shuffled(items)
        chosen: dict[int, None] = {}
        while len(chosen) < count:
            chosen[self.below(len(items))] = None
        return [items[number] for number in chosen]
