"""Executed docstrings as trajectories: tool calls where the documentation allows them, code elsewhere."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
from doctest_jobs import PRICE, PROVENANCE, execute, make_job

from hephaestus_jax.forge.doctests.results import ExecutedExample
from hephaestus_jax.forge.doctests.trajectories import to_trajectory, tool_from
from hephaestus_jax.formats.records import ApiAction, ApiDoc, CodeAction, TextObservation, Tool, from_json, to_json

PRICE_DOC = ApiDoc(
    name="wares.price",
    provider="wares",
    description="The price of some wares.\n\nMore text.",
    provenance=PROVENANCE,
    signature="price(count, each=2.0)",
    parameters={
        "type": "object",
        "properties": {"count": {"type": "integer"}, "each": {"type": "number"}},
        "required": ["count"],
    },
)
POOL = [Tool(f"wares.other{n}") for n in range(9)]


def steps_of(*pairs: tuple[str, str], setup: str = "from wares import price\n") -> list[ExecutedExample]:
    executed = [ExecutedExample(setup, "", "", None, True, index=-1, setup=True)]
    return executed + [ExecutedExample(s + "\n", "", got, None, True, index=n) for n, (s, got) in enumerate(pairs)]


def test_plain_calls_become_tool_calls() -> None:
    job = make_job("wares.price", ">>> price(3)\n6.0\n>>> price(count=1, each=0.5)\n0.5")
    trajectory = to_trajectory(
        job, steps_of(("price(3)", "6.0\n"), ("price(count=1, each=0.5)", "0.5\n")), PRICE_DOC, POOL
    )
    assert trajectory is not None
    user, *steps = trajectory.steps
    assert isinstance(user, TextObservation) and user.source == "user"
    assert "The price of some wares." in user.content and "count = 3; then count = 1, each = 0.5" in user.content
    assert steps == [
        ApiAction("wares.price", {"count": 3}, tool_call_id="call_0", outcome="ok"),
        TextObservation("6.0", "environment", tool_call_id="call_0"),
        ApiAction("wares.price", {"count": 1, "each": 0.5}, tool_call_id="call_1", outcome="ok"),
        TextObservation("0.5", "environment", tool_call_id="call_1"),
    ]
    names = [tool.name for tool in trajectory.tools]
    assert "wares.price" in names and 3 <= len(names) == len(set(names)) <= 5
    assert trajectory.code_languages == () and trajectory.success is True
    assert trajectory == to_trajectory(
        job, steps_of(("price(3)", "6.0\n"), ("price(count=1, each=0.5)", "0.5\n")), PRICE_DOC, POOL
    )
    assert from_json(json.loads(json.dumps(to_json(trajectory)))) == trajectory


@pytest.mark.parametrize(
    "source",
    [
        "price(x)",  # not a literal
        "price((1, 2))",  # a tuple is not JSON
        "price(1, 2, 3)",  # more than the signature takes
        "price(1, colour=2)",  # unknown to the schema
        "price(each=1.0)",  # lacks what is required
        "price('a')",  # of another type
        "price(True)",
        "price(*[1])",
        "price(**{'count': 1})",
        "y = price(1)",
        "price(1) + 1",
        "other(price)",
        "basket.price(1)",
        "price(float('nan'))",
        "price({1: 2})",
        "price(1); price(2)",
        "price" + "(" * 500,
    ],
)
def test_everything_else_stays_code(source: str) -> None:
    job = make_job("wares.price", f">>> {source}\n6.0")
    trajectory = to_trajectory(job, steps_of((source, "6.0\n")), PRICE_DOC, POOL)
    assert trajectory is not None
    actions = [step for step in trajectory.steps if not isinstance(step, TextObservation)]
    assert all(isinstance(action, CodeAction) for action in actions)
    assert isinstance(actions[-1], CodeAction)
    assert actions[-1].content in (source, f"from wares import price\n{source}")  # imports go into the same call
    assert trajectory.tools == () and trajectory.code_languages == ("python",)


def test_calls_are_recognised_under_every_name() -> None:
    job = make_job("wares.price", ">>> import wares as w\n>>> w.deep.price(1)\n2.0", aliases=("wares.deep.price",))
    executed = steps_of(("import wares as w", ""), ("w.deep.price(1)", "2.0\n"))
    trajectory = to_trajectory(job, executed, PRICE_DOC, POOL)
    assert trajectory is not None
    assert [type(step).__name__ for step in trajectory.steps] == ["TextObservation", "ApiAction", "TextObservation"]


def test_prose_becomes_the_users_turn_and_imports_come_first() -> None:
    job = make_job(
        "wares.price", "Summary.\n\n>>> x = 2\n\nPrices are floats:\n\n>>> price(x)  # doctest: +ELLIPSIS\n4.0"
    )
    executed = steps_of(("x = 2", ""), ("price(x)  # doctest: +ELLIPSIS", "4.0\n"))
    trajectory = to_trajectory(job, executed)
    assert trajectory is not None
    said = [step.content for step in trajectory.steps if isinstance(step, TextObservation) and step.source == "user"]
    ran = [step.content for step in trajectory.steps if isinstance(step, CodeAction)]
    assert said == ["How is `wares.price` used? Summary. Run it, please.", "Prices are floats:"]
    assert ran == ["from wares import price\nx = 2", "price(x)"], "silent code waits for what follows, not for the user"
    ids = [step.tool_call_id for step in trajectory.steps if isinstance(step, CodeAction)]
    assert len(set(ids)) == len(ids)


def test_without_prose_the_summary_is_the_intent_and_dropped_steps_are_gone() -> None:
    job = make_job("wares.price", ">>> object()\n>>> price.x\n2")
    executed = [
        ExecutedExample("object()\n", "", "<object at 0x1234>\n", None, False, 0, dropped="differs"),
        ExecutedExample("price.x\n", "2\n", "1\n", None, False, 1),
    ]
    trajectory = to_trajectory(job, executed, PRICE_DOC)
    assert trajectory is not None
    assert isinstance(trajectory.steps[0], TextObservation) and "`wares.price`" in trajectory.steps[0].content
    assert [step.content for step in trajectory.steps if isinstance(step, CodeAction)] == ["price.x"]
    assert trajectory.success is False
    assert trajectory.provenance.processing == ("doctest examples executed twice, equal outputs kept",)


def test_a_docstring_that_shows_nothing_makes_no_trajectory() -> None:
    job = make_job("wares.price", ">>> x = 1\n>>> object()")
    silent = ExecutedExample("x = 1\n", "", "", None, True, 0)
    dropped = ExecutedExample("object()\n", "", "<object>\n", None, False, 1, dropped="differs")
    assert to_trajectory(job, [silent, dropped]) is None
    assert to_trajectory(job, []) is None
    spoken = ExecutedExample("print(1)\n", "", "1\n", None, False, 1)
    assert to_trajectory(job, [silent, spoken]) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")
def test_a_docstring_all_the_way_to_a_trajectory(wares: Path, tmp_path: Path) -> None:
    job = make_job("wares.price", PRICE)
    outcome = execute([job], wares, tmp_path)["wares.price"]
    assert isinstance(outcome, list)
    trajectory = to_trajectory(job, outcome, PRICE_DOC, POOL)
    assert trajectory is not None
    shapes = [type(step).__name__ for step in trajectory.steps if not isinstance(step, TextObservation)]
    assert shapes == ["CodeAction", "ApiAction", "CodeAction", "ApiAction", "CodeAction"]
    last = trajectory.steps[-3]
    assert isinstance(last, TextObservation) and last.content.endswith("ValueError: count is negative")


def test_code_that_prints_nothing_is_run_with_what_follows() -> None:
    job = make_job("wares.price", "Summary.\n\n>>> x = 2\n>>> y = 3\n>>> price(x)\n4.0\n>>> z = price(y)\n>>> z\n6.0")
    executed = steps_of(("x = 2", ""), ("y = 3", ""), ("price(x)", "4.0\n"), ("z = price(y)", ""), ("z", "6.0\n"))
    trajectory = to_trajectory(job, executed)
    assert trajectory is not None
    ran = [step.content for step in trajectory.steps if isinstance(step, CodeAction)]
    seen = [s.content for s in trajectory.steps if isinstance(s, TextObservation) and s.source == "environment"]
    assert ran == ["from wares import price\nx = 2\ny = 3\nprice(x)", "z = price(y)\nz"]
    assert seen == ["4.0", "6.0"]


def test_offered_tools_hold_no_python_only_keys() -> None:
    documented = {"type": "object", "properties": {"count": {"type": "integer", "x-python-type": "np.int64"}}}
    tool = tool_from(dataclasses.replace(PRICE_DOC, parameters=documented))
    assert "x-python" not in str(tool.parameters) and "np.int64" in str(tool.parameters)
