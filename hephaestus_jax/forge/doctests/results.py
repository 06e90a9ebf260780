"""What came of executing docstrings: the steps of each, what two runs agree on, and the counts."""

from __future__ import annotations

import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from hephaestus_jax.forge.doctests.extract import DoctestJob, extract_examples, names_in


@dataclass(frozen=True)
class ExecutedExample:
    """One example as it ran.

    `got` is what it printed, a traceback without its frames at the end if it raised; `exception` the class it raised;
    `matched` whether that is what the documentation says. `index` counts the docstring's examples from 0, and is -1
    for the imports that the sandbox put in front (`setup`). `dropped` says why the example must not be used, "" if it
    may be; such an example has not `matched`, and its `got` is empty where the runs differ.
    """

    source: str
    want: str
    got: str
    exception: str | None
    matched: bool
    index: int = 0
    setup: bool = False
    dropped: str = ""


@dataclass(frozen=True)
class Failure:
    """A docstring of which nothing can be used.

    `reason` is one of malformed, no examples, marked +SKIP, shows nothing, import, timeout, output, crashed, exited,
    differs.
    """

    reason: str
    detail: str = ""


Outcome = list[ExecutedExample] | Failure

_TYPES = {"source": str, "want": str, "got": str, "matched": bool, "index": int, "setup": bool, "dropped": str}


def read_result(value: Any) -> Outcome:
    """The outcome a worker reports. A docstring can forge what it reports, so the form is checked here."""
    try:
        if "failure" in value:
            return Failure(str(value["failure"])[:100], str(value.get("detail", ""))[:1000])
        steps = []
        for step in value["steps"]:
            if any(type(step[name]) is not kind for name, kind in _TYPES.items()):
                raise TypeError
            if step["exception"] is not None and not isinstance(step["exception"], str):
                raise TypeError
            steps.append(ExecutedExample(**step))
    except (KeyError, TypeError, AttributeError):
        return Failure("crashed", "reported something else than a result")
    return steps


_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{4,}")
_SET_OF_STRINGS = re.compile(r"\{(?:b?'[^']*'|b?\"[^\"]*\")(?:, (?:b?'[^']*'|b?\"[^\"]*\"))+\}")

_PATHS = sysconfig.get_paths()
_MACHINE_PATHS = {_PATHS[name] for name in ("stdlib", "purelib", "platlib")}
if sys.prefix != sys.base_prefix:  # a virtual environment; "/usr" alone would be in many an honest output
    _MACHINE_PATHS.add(sys.prefix)


def unstable(text: str, now: datetime) -> str:
    """Why `text` would not come out the same elsewhere or tomorrow although two runs agreed on it; "" if it would."""
    if _ADDRESS.search(text):
        return "memory address"
    if _SET_OF_STRINGS.search(text):
        return "set order"
    if any(path in text for path in _MACHINE_PATHS):
        return "machine path"
    if re.search(rf"\b{now.year}\D{{1,2}}0?{now.month}\D{{1,2}}0?{now.day}\b", text):
        return "today's date"
    return ""


def agreement(first: Outcome, second: Outcome) -> Outcome:
    """What two runs of one docstring agree on; the examples that differ, and what builds on them, marked as dropped."""
    for outcome in (first, second):
        if isinstance(outcome, Failure):
            return outcome
    assert isinstance(first, list) and isinstance(second, list)
    if [step.source for step in first] != [step.source for step in second]:
        return Failure("differs", "the runs needed different set-ups")
    now = datetime.now(UTC)
    lost: set[str] = set()  # names that only dropped examples have bound
    steps = []
    for a, b in zip(first, second, strict=True):
        reason = a.dropped or b.dropped
        if not reason and (a.got, a.exception) != (b.got, b.exception):
            reason = "differs"
        reason = reason or unstable(a.got, now)
        names = names_in(a.source)
        if not reason and not lost.isdisjoint(names.reads):
            reason = "follows a dropped example"
        lost = lost | names.binds if reason else lost - names.binds
        # What differs between runs must not tell one build of the corpus from another.
        got = "" if reason and (a.got != b.got or unstable(a.got, now)) else a.got
        steps.append(replace(a, got=got, matched=a.matched and not reason, dropped=reason))
    return steps


@dataclass
class Counts:
    """What came of the docstrings of one package. Examples the sandbox put in front are not counted."""

    docstrings: int = 0
    examples: int = 0
    executed: int = 0  # examples that ran in both runs to an end that can be compared
    equal: int = 0  # of those, with equal outputs, fit for use
    matched: int = 0  # of those, with the documented output
    failures: Counter[str] = field(default_factory=Counter)  # docstrings, by reason
    dropped: Counter[str] = field(default_factory=Counter)  # examples, by reason

    def add(self, job: DoctestJob, outcome: Outcome) -> None:
        """Counts one docstring."""
        self.docstrings += 1
        try:
            examples = extract_examples(job.docstring)
        except ValueError:
            examples = ()
        self.examples += len(examples)
        if isinstance(outcome, Failure):
            self.failures[outcome.reason] += 1
            self.dropped += Counter({outcome.reason: len(examples)})  # adding a Counter leaves zeros out
            return
        steps = [step for step in outcome if not step.setup]
        kept = [step for step in steps if not step.dropped]
        self.executed += len(steps)
        self.equal += len(kept)
        self.matched += sum(step.matched for step in kept)
        self.dropped.update(step.dropped for step in steps if step.dropped)
        self.dropped += Counter({"marked +SKIP": len(examples) - len(steps)})


def tally(results: Sequence[tuple[DoctestJob, Outcome]]) -> dict[str, Counts]:
    """Counts per source (`provenance.source`), sorted by name."""
    counts: dict[str, Counts] = {}
    for job, outcome in results:
        counts.setdefault(job.provenance.source, Counts()).add(job, outcome)
    return dict(sorted(counts.items()))
