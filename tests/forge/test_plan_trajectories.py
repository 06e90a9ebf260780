"""Which trajectories of a source are validation: all that call a tool, or none."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from hephaestus_jax.forge.cleaning import CleanFacts
from hephaestus_jax.forge.config import ForgeConfig
from hephaestus_jax.forge.infos import info_of
from hephaestus_jax.forge.pipeline import build_corpus
from hephaestus_jax.forge.plan import plan_corpus
from hephaestus_jax.forge.stages import CleanIndex
from hephaestus_jax.forge.units import Unit
from hephaestus_jax.formats.records import (
    ApiAction,
    MessageAction,
    Provenance,
    Record,
    TextObservation,
    Trajectory,
    record_id,
)

FROM = Provenance("s", "1", "MIT")
WORDS = "river bridge market kitchen ladder painter silver copper paper glass stone cotton monday friday letter parcel"


def words(number: int) -> str:
    return " ".join(random.Random(number).choices(WORDS.split(), k=25))


def trajectory(number: int, *tools: str, asked: str = "") -> Trajectory:
    """One that says what no other does."""
    calls = [ApiAction(tool, {"of": words(7 * number + place)}) for place, tool in enumerate(tools)]
    return Trajectory(
        (TextObservation(asked or words(number), "user"), *calls, MessageAction(words(number + 5000))), FROM
    )


def validation(units: Sequence[Sequence[Trajectory]], fraction: float = 0.1, seed: int = 0) -> list[list[Trajectory]]:
    """The trajectories of each unit that are validation."""
    indexes = [CleanIndex([info_of(t, record_id(t), "en") for t in unit], [], CleanFacts()) for unit in units]
    config = ForgeConfig(validation_fraction=fraction, seed=seed)
    plan = plan_corpus([Unit(f"u{n}", "openai_messages", 1, None) for n in range(len(units))], indexes, config)
    assert not any(plan.share(number).dropped for number in range(len(units)))
    return [[unit[number] for number in sorted(plan.share(n).validation)] for n, unit in enumerate(units)]


def called(records: Sequence[Record]) -> set[str]:
    steps = [step for record in records if isinstance(record, Trajectory) for step in record.steps]
    return {step.function for step in steps if isinstance(step, ApiAction)}


def test_training_sees_no_call_of_a_chosen_tool_in_any_unit() -> None:
    units = [[trajectory(100 * u + n, f"tool{n % 20}", "finish") for n in range(60)] for u in range(2)]
    held = validation(units)
    taken = [t for unit in held for t in unit]
    left = [t for unit in units for t in unit if t not in taken]
    assert 0 < len(taken) <= 12 and all(held)  # 10 % of 120
    assert called(taken) & called(left) == {"finish"}  # which all call
    assert held == validation(units) and held != validation(units, seed=1)
    assert not any(validation(units, fraction=0.0))


def test_where_all_tools_are_called_often_the_least_called_is_taken() -> None:
    made = [trajectory(n, *(["a"] if n % 4 else ["b"]), "finish") for n in range(40)]
    (held,) = validation([made], fraction=0.01)
    assert len(held) == 10 and called(held) == {"b", "finish"}
    assert validation([[trajectory(n, "a") for n in range(10)]]) == [[]]  # nothing is left to train on


def test_all_answers_to_a_prompt_go_together() -> None:
    made = [trajectory(n, asked=f"Prompt {n % 25}: {words(n % 25)}") for n in range(50)]
    (held,) = validation([made])
    asked = {t.steps[0] for t in held}
    assert len(held) == 4 and all((t in held) == (t.steps[0] in asked) for t in made)


def test_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function = {"type": "object", "properties": {"q": {"type": "string"}}}
    rows = []
    for n in range(40):
        call = {
            "id": "1",
            "type": "function",
            "function": {"name": f"find{n % 10}", "arguments": json.dumps({"q": words(n)})},
        }
        turns = [
            {"role": "user", "content": f"Please look for {words(n)}."},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": words(n + 900)},
            {"role": "assistant", "content": f"The answer to it is {words(n + 900)}."},
        ]
        tools = [{"type": "function", "function": {"name": f"find{k}", "parameters": function}} for k in range(10)]
        rows.append(json.dumps({"messages": turns, "tools": tools}))
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.jsonl").write_text("\n".join(rows))
    config = ForgeConfig(
        sources=(f"openai_messages={tmp_path / 'rows'}",),
        validation_fraction=0.2,
        workers=1,
        compose=False,
        languages=("en",),
    )
    corpus = build_corpus(config, tmp_path / "c")
    train, held = (
        [record for _, record in corpus.read("agent_trajectories", split)] for split in ("train", "validation")
    )
    assert len(train) == 32 and len(held) == 8 and not called(train) & called(held)
