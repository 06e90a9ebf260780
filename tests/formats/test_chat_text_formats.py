"""ReAct and code as action: plain and within a family's turns, weights to the character."""

from __future__ import annotations

import pytest
from chat_conversations import PROVENANCE, weighted_text

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat import chat_renderer
from hephaestus_jax.formats.records import (
    ApiAction,
    CodeAction,
    MessageAction,
    TextObservation,
    Tool,
    Trajectory,
)
from hephaestus_jax.formats.spans import BOS, EOS

PARAMETERS = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {}}, "required": ["x"]}
STEPS = (
    TextObservation("question", "user"),
    ApiAction("wrong", {"x": 1}, reasoning_content="why", tool_call_id="a", outcome="error"),
    TextObservation("failed", "environment", "a"),
    ApiAction("right", {"x": 2, "not a name": None}, description="better", tool_call_id="b"),
    ApiAction("GET /pets", {"n": True}, tool_call_id="c"),
    CodeAction("bash", "ls", tool_call_id="d"),
    TextObservation("fine", "environment", "b"),
    TextObservation("pets", "environment", "c"),
    TextObservation("files", "environment", "d"),
    MessageAction("answer"),
)
TRAJECTORY = Trajectory(STEPS, PROVENANCE, (Tool("right", "Does it.", PARAMETERS), Tool("GET /pets")), system="system")


def test_plain_react():
    rendering = chat_renderer("react", train_on="assistant").render(TRAJECTORY)
    assert rendering.text.startswith(f"{BOS}system\n\nYou can call these tools:\n- right: Does it. Arguments: {{")
    behind = rendering.text[rendering.text.index("Question: ") :]
    assert behind == (
        "Question: question\n"
        'Thought: why\nAction: wrong\nAction Input: {"x": 1}\n'
        "Observation: failed\n"
        'Thought: better\nAction: right\nAction Input: {"x": 2, "not a name": null}\n'
        'Action: GET /pets\nAction Input: {"n": true}\nAction: bash\nAction Input: {"code": "ls"}\n'
        "Observation: fine\nObservation: pets\nObservation: files\n"
        f"Final Answer: answer\n{EOS}"
    )
    assert weighted_text(rendering) == (
        'Thought: better\nAction: right\nAction Input: {"x": 2, "not a name": null}\n'
        'Action: GET /pets\nAction Input: {"n": true}\nAction: bash\nAction Input: {"code": "ls"}\n¦'
        f"Final Answer: answer\n{EOS}"
    )
    carried = "".join(span.text for span in rendering.spans[: rendering.carry])
    assert rendering.text == carried + behind and rendering.spans[0].text == BOS


def test_react_within_a_family():
    rendering = chat_renderer("react:llama3", train_on="assistant").render(TRAJECTORY)
    assert weighted_text(rendering).endswith(
        'Action: bash\nAction Input: {"code": "ls"}<|eot_id|>¦Final Answer: answer<|eot_id|>'
    )
    assert "ipython" not in rendering.text and "system\n\nYou can call these tools" in rendering.text
    assert "<|start_header_id|>user<|end_header_id|>\n\nObservation: failed<|eot_id|>" in rendering.text
    assert {span.kind for span in rendering.spans if "Observation: failed" in span.text} == {"observation"}
    assert chat_renderer("react:llama3").controls == chat_renderer("llama3").controls


def test_a_thought_before_a_final_answer():
    steps = (STEPS[0], MessageAction("yes", reasoning_content="because", outcome="error"))
    text = chat_renderer("react").render(Trajectory(steps, PROVENANCE)).text
    assert text == f"{BOS}Question: question\nThought: because\nFinal Answer: yes\n{EOS}"
    rendering = chat_renderer("react", train_on="assistant").render(Trajectory(steps, PROVENANCE))
    assert weighted_text(rendering) == ""


@pytest.mark.parametrize("name", ["two\nlines", " outer", "outer ", ""])
def test_names_that_react_cannot_write(name):
    with pytest.raises(UserError, match="no form for a tool named"):
        chat_renderer("react").render(Trajectory((ApiAction(name, {}),), PROVENANCE))


def test_plain_code_as_action():
    rendering = chat_renderer("code_action", train_on="assistant").render(TRAJECTORY)
    assert "- right(x: integer, y: any = ...): Does it.\n- call_tool('GET /pets', {})\n" in rendering.text
    assert weighted_text(rendering) == (
        "better\n\n<execute>\nprint(right(x=2, **{'not a name': None}))\nprint(call_tool('GET /pets', {'n': True}))\n"
        "</execute>\n\n<execute_bash>\nls\n</execute_bash>\n\n¦"
        f"answer\n\n{EOS}"
    )
    wrong = "Assistant: why\n\n<execute>\nprint(wrong(x=1))\n</execute>"
    assert f"User: question\n\n{wrong}\n\nObservation: failed\n\n" in rendering.text


def test_code_as_action_within_a_family_in_fences():
    rendering = chat_renderer("code_action:mistral_v1", train_on="assistant", block="fence").render(TRAJECTORY)
    assert weighted_text(rendering) == (
        "better\n\n```python\nprint(right(x=2, **{'not a name': None}))\nprint(call_tool('GET /pets', {'n': True}))\n"
        "```\n\n```bash\nls\n```</s>¦answer</s>"
    )


def test_a_block_that_opens_a_plain_turn_stands_on_its_own_line():
    text = chat_renderer("code_action").render(Trajectory((CodeAction("python", "1"),), PROVENANCE)).text
    assert text == f"{BOS}Assistant: \n<execute>\n1\n</execute>\n\n{EOS}"


def test_thoughts_are_left_out_on_request():
    for name in ("react", "code_action", "react:hermes"):
        assert "why" in chat_renderer(name).render(TRAJECTORY).text
        assert "why" not in chat_renderer(name, thoughts=False).render(TRAJECTORY).text
