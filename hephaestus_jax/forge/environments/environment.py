"""What an environment is: a game or a machine that is told what to do by calls of tools, and answers in words.

    @environment("vending", Terms("vending-env", "2.1", "MIT", needs=("vending",)), games=("drinks", "sweets"))
    class Vending(Environment):
        '''A vending machine that must be made to give what the user asks for.'''
        ...

An episode is a game and a seed. Nothing in an environment may be random but by these: the same calls after the same
`reset` give the same words, on any machine. Packages that an environment needs are imported in its `__init__`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal, get_args

import jsonschema

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import Json, Tool, canonical_json

# What training may see, and three ways of not having been seen. All but "train" go to the validation side.
Split = Literal["train", "unseen_seeds", "unseen_games", "unseen_environments"]
SPLITS_OF_EPISODES: tuple[Split, ...] = get_args(Split)
FIRST_UNSEEN_SEED = 1 << 30  # seeds of training lie below, those of "unseen_seeds" at or above


class NoWorld(UserError):
    """There is no world for a seed that its expert wins; another seed is taken."""


@dataclass(frozen=True)
class Call:
    """What an agent does: a tool of those on offer, and its arguments."""

    tool: str
    arguments: Mapping[str, Json] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Equal for equal calls."""
        return canonical_json([self.tool, dict(self.arguments)])


@dataclass(frozen=True)
class Verb:
    """A tool of an environment, with other ways to call and to describe it (`perturbations`).

    Args:
        name: the environment's own name of it; what `Call.tool` says.
        descriptions: equivalent ones, at least two; the first is the plain one.
        parameters: JSON Schema of type "object"; closed ("additionalProperties": False is added by `tool`).
        other_names: at least one; no name may be used by two verbs of an environment.
        reasons: why one would call it, as sentences of a first person, with the arguments in braces:
            "I have not looked behind the {direction} door yet." At least three. Only what a player knows.
    """

    name: str
    descriptions: tuple[str, ...]
    parameters: Mapping[str, Json] = field(default_factory=dict)  # name of a parameter to its schema; all are required
    other_names: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()  # parameters that may be left out

    def tool(self, name: str = "", description: str = "") -> Tool:
        """The verb as a tool on offer."""
        required = [key for key in self.parameters if key not in self.optional]
        schema = {
            "type": "object", "properties": dict(self.parameters), "required": required, "additionalProperties": False,
        }  # fmt: skip
        return Tool(name or self.name, description or self.descriptions[0], schema)


@dataclass(frozen=True)
class Task:
    """How an episode begins.

    `goal` is the user's request in full sentences, `observation` what is seen at first ("" if nothing), `system` a
    system prompt that says what the environment is and how it is used; `max_steps` bounds an episode.
    """

    goal: str
    observation: str
    verbs: tuple[Verb, ...]
    system: str
    max_steps: int


@dataclass(frozen=True)
class Feedback:
    """What a call brought about.

    `error` is whether the environment refused it or it could have no effect; `score` is between 0 and 1 and of the
    episode so far; `success` whether the goal is reached now, `done` whether the episode is over (won or lost).
    """

    observation: str
    error: bool
    score: float
    success: bool
    done: bool


class Environment(ABC):
    """One running environment, used for one episode after the other; `close` ends it."""

    @abstractmethod
    def reset(self, game: str, seed: int, split: Split) -> Task:
        """Begins an episode. Where a package has folds of its own, "train" is its training fold, else its test fold.

        A seed may be any integer from 0 below 2³¹; a small number of variations is `seed % count`.
        """

    @abstractmethod
    def step(self, call: Call) -> Feedback:
        """Does what a call says. It is valid by the schema of its tool (`checked_step` sees to that).

        What cannot be done is feedback with `error`, in words that help, never an exception.
        """

    @abstractmethod
    def choices(self) -> Sequence[Call]:
        """Calls that a player who knows only what was observed so far could make now, in a fixed order.

        Wrong steps, random play and detours are drawn from these; they need not be wise, nor all possible ones.
        """

    def looks(self) -> Sequence[Call]:
        """Of the choices those that only look (inventory, examine, list files): they leave the state as it is."""
        return ()

    def oracle(self) -> Call | None:
        """The next call of an expert from the state as it is now; None where only `gold_path` is known.

        After success, in environments that end by a call of the player's, that call.
        """
        return None

    def gold_path(self) -> Sequence[Call]:
        """An expert's calls from the beginning of this episode to success; () where `oracle` answers."""
        return ()

    def undo(self, call: Call) -> Call | None:
        """A call that takes back `call`, if there is one that a player would know (go back, close again, put back).

        It is asked before `call` is made as well as after.
        """
        return None

    def reasons(self, call: Call) -> Sequence[str]:
        """Why one would make this call now, as whole sentences; () for no better ones than those of the verb.

        Asked before the call is made. They may say what the agent has seen and what it wants, nothing else.
        """
        return ()

    def state(self) -> str:
        """A fingerprint of the state, hidden parts included: equal ones mean that the same calls do the same."""
        return ""

    def answer(self) -> str:
        """What the agent tells the user after success, where the goal asks for an answer; "" for a plain report."""
        return ""

    def close(self) -> None:  # noqa: B027  most have nothing to end
        """Ends processes, connections and scratch folders. May be called twice."""


def checked_step(environment: Environment, verbs: Sequence[Verb], call: Call, last: Feedback | None) -> Feedback:
    """Steps, but answers itself to a call of a tool that is not on offer, or with arguments against its schema."""
    complaint = complaint_about(verbs, call)
    if complaint:
        score, success = (last.score, last.success) if last is not None else (0.0, False)
        return Feedback(complaint, True, score, success, False)
    return environment.step(call)


def complaint_about(verbs: Sequence[Verb], call: Call) -> str:
    """What is wrong with the form of a call; "" if nothing is."""
    verb = next((verb for verb in verbs if verb.name == call.tool), None)
    if verb is None:
        return f"Error: there is no tool named {call.tool}. Tools: {', '.join(sorted(verb.name for verb in verbs))}."
    validator = jsonschema.Draft202012Validator(verb.tool().parameters)
    problem = next(iter(sorted(validator.iter_errors(dict(call.arguments)), key=lambda error: error.message)), None)
    return f"Error: the arguments of {call.tool} are invalid: {problem.message}" if problem else ""


@dataclass(frozen=True)
class Terms:
    """Where an environment comes from: package ("" for this project's own), version, licence (SPDX).

    `needs` are modules that must be importable, `programs` commands that must be installed, `extra` names the extra
    of this project that brings them.
    """

    package: str
    version: str
    licence: str
    needs: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    extra: str = "environments"


@dataclass(frozen=True)
class Kind:
    """A registered environment. `unseen_games` are never trained on, nor is any game of one that is `held_out`."""

    name: str
    terms: Terms
    games: tuple[str, ...]
    unseen_games: tuple[str, ...]
    held_out: bool
    make: Callable[[], Environment] = field(compare=False)
    description: str = ""

    def missing(self) -> str:
        """What is not installed, and how to get it; "" if everything is there."""
        from shutil import which

        modules = [name for name in self.terms.needs if find_spec(name) is None]
        programs = [name for name in self.terms.programs if which(name) is None]
        if modules:
            return f"{', '.join(modules)} not installed: pip install 'hephaestus_jax[{self.terms.extra}]'"
        package, wanted = self.terms.package, self.terms.version
        if package and (found := version(package)) != wanted:  # another version may say other words
            return f"{package} {found} is installed: pip install '{package}=={wanted}'"
        return f"{', '.join(programs)} not installed: it comes with the system's packages" if programs else ""


ENVIRONMENTS: dict[str, Kind] = {}


def environment(
    name: str, terms: Terms, games: Sequence[str], unseen_games: Sequence[str] = (), held_out: bool = False
) -> Callable[[type[Environment]], type[Environment]]:
    """Registers the decorated class; `games` are those of training, `unseen_games` further ones."""

    def register(made: type[Environment]) -> type[Environment]:
        if name in ENVIRONMENTS or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise UserError(f"environment name {name!r} is taken or is not lower-case letters, digits, underscores")
        told = (made.__doc__ or "").strip().partition("\n")[0]
        ENVIRONMENTS[name] = Kind(name, terms, tuple(games), tuple(unseen_games), held_out, made, told)
        return made

    return register
