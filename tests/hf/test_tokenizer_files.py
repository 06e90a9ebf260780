"""The whole set of tokenizer files, and chat templates: the text and the ids of our renderers."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path += [str(Path(__file__).parents[1] / "data"), str(Path(__file__).parents[1] / "formats")]
import tokenizer_files as files
from chat_conversations import CONTROLS, EDGES, TEXTS, Script, Taste, encode, scripts

from hephaestus_jax.data.sentencepiece_training import VocabularyConfig, train_sentencepiece
from hephaestus_jax.data.tokenization import tokenize
from hephaestus_jax.data.vocabularies import Vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat import chat_renderer
from hephaestus_jax.formats.messages import trajectory_from_messages
from hephaestus_jax.formats.records import Provenance
from hephaestus_jax.formats.spans import SEAM
from hephaestus_jax.hf.chat_templates import chat_template
from hephaestus_jax.hf.config_files import TokenIds
from hephaestus_jax.hf.tokenizer_files import token_ids, tokenizer_files

transformers = pytest.importorskip("transformers")

FAMILIES = ("llama3", "llama3.1", "hermes", "qwen2.5", "qwen3")
WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Zürich"}}},
}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    controls = dict.fromkeys(name for family in FAMILIES for name in chat_renderer(family).controls)
    config = VocabularyConfig(2_000, tuple(controls), max_bytes=200_000)
    return train_sentencepiece(files.sources(15), tmp_path_factory.mktemp("vocabulary"), config)


def auto_tokenizer(vocabulary: Vocabulary, chat: str, folder: Path) -> Any:
    for name, data in tokenizer_files(vocabulary, chat, 10**6).files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return transformers.AutoTokenizer.from_pretrained(folder)


def messages_of(script: Script) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """The script as transformers takes it."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": script.system}] if script.system else []
    for message in script.messages:
        calls = [
            {"type": "function", "id": call["id"], "function": {"name": call["name"], "arguments": call["arguments"]}}
            for call in message.get("calls", ())
        ]
        message = {key: value for key, value in message.items() if key != "calls"}
        messages.append({**message, "tool_calls": calls} if calls else message)
    return messages, [{"type": "function", "function": tool} for tool in script.tools] or None


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_and_ids_of_conversations(family: str, vocabulary: Vocabulary, tmp_path: Path) -> None:
    tokenizer, renderer = auto_tokenizer(vocabulary, family, tmp_path), chat_renderer(family)
    controls = {name: vocabulary.control_ids[name] for name in renderer.controls}
    same = 0
    plain = scripts(60, Taste(texts=TEXTS + EDGES), seed=1)
    for script in [*plain, *scripts(30, Taste(texts=TEXTS + CONTROLS), seed=2)]:
        messages, tools = messages_of(script)
        rendering = renderer.render(script.trajectory())
        assert tokenizer.apply_chat_template(messages, tools=tools, tokenize=False) == rendering.text
        if script in plain and family not in (
            "hermes",
            "qwen2.5",
        ):  # to which some of this vocabulary's tokens are text
            ids = tokenizer.apply_chat_template(messages, tools=tools, return_dict=False)
            # what stands between two control tokens is encoded at once, across seams
            seamless = dataclasses.replace(rendering, spans=tuple(s for s in rendering.spans if s != SEAM))
            assert ids == encode(seamless, controls, lambda text: vocabulary.encode(text).tolist())
            same += ids == tokenize([rendering], vocabulary)[0].tokens_T.tolist()
    assert same == 60 or family != "qwen3"  # which has no seams


def test_a_conversation_with_tools_has_our_ids(vocabulary: Vocabulary, tmp_path: Path) -> None:
    tokenizer, renderer = auto_tokenizer(vocabulary, "llama3", tmp_path), chat_renderer("llama3")
    tools = [{"type": "function", "function": WEATHER}]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the weather in Zürich?"},
        {"role": "assistant", "content": "Let me see."},
        {"role": "user", "content": "Well?"},
        {"role": "assistant", "content": "Sunny, 21 °C."},
    ]
    row = {"messages": messages, "tools": tools}
    rendering = renderer.render(trajectory_from_messages(row, Provenance("tests", "1", "Apache-2.0")))
    expected = tokenize([rendering], vocabulary)[0].tokens_T.tolist()
    assert tokenizer.apply_chat_template(messages, tools=tools, return_dict=False) == expected
    prompt = tokenizer.apply_chat_template(messages[:-1], tools=tools, add_generation_prompt=True, return_dict=False)
    assert prompt == expected[: len(prompt)]
    assert tokenizer.decode(expected[len(prompt) :]) == "Sunny, 21 °C.<|eot_id|>"


def test_neighbouring_messages_and_other_forms_of_content(vocabulary: Vocabulary, tmp_path: Path) -> None:
    tokenizer, renderer = auto_tokenizer(vocabulary, "llama3", tmp_path), chat_renderer("llama3")

    def call(city: str) -> dict[str, Any]:
        return {"type": "function", "function": {"name": "get_weather", "arguments": {"city": city}}}

    messages = [
        {"role": "system", "content": "One."},
        {"role": "developer", "content": [{"type": "text", "text": "Two."}]},
        {"role": "user", "content": [{"type": "text", "text": "Weather "}, {"type": "text", "text": "where?"}]},
        {"role": "assistant", "content": "First.", "reasoning_content": "Hm."},
        {"role": "assistant", "content": "Second.", "tool_calls": [call("Zürich"), call("Genf")]},
        {"role": "assistant", "content": None, "tool_calls": [call("Bern")]},
        {"role": "assistant", "content": "A text behind calls opens a turn."},
        {"role": "tool", "content": "21"},
        {"role": "user", "content": "Thanks."},
        {"role": "assistant", "content": "One."},
        {"role": "assistant", "content": "Two.", "reasoning_content": "A thought behind a text does too."},
    ]
    trajectory = trajectory_from_messages({"messages": messages}, Provenance("tests", "1", "Apache-2.0"))
    assert tokenizer.apply_chat_template(messages, tokenize=False) == renderer.render(trajectory).text


def test_templates_are_said_to_be_missing(vocabulary: Vocabulary, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'mistral' has no template for transformers; .*--chat none"):
        chat_template("mistral")
    with pytest.raises(UserError, match="has no template"):
        chat_template("nonsense")
    plain = train_sentencepiece(files.sources(3), tmp_path, VocabularyConfig(400, max_bytes=20_000))
    with pytest.raises(UserError, match=r"lacks the control tokens <\|begin_of_text\|>"):
        tokenizer_files(plain, "llama3", 100)
    assert "chat_template.jinja" not in tokenizer_files(plain, "none", 100).files


def test_template_of_another_model(vocabulary: Vocabulary, tmp_path: Path) -> None:
    auto_tokenizer(vocabulary, "hermes", tmp_path / "a")
    (tmp_path / "a/additional_chat_templates").mkdir()
    (tmp_path / "a/additional_chat_templates/tool_use.jinja").write_text("{{ 'with tools' }}")
    tokenizer = auto_tokenizer(vocabulary, f"template_file:{tmp_path / 'a'}", tmp_path / "b")
    assert (tmp_path / "b/chat_template.jinja").read_text() == chat_template("hermes")["chat_template.jinja"]
    asked = [{"role": "user", "content": "x"}]
    assert tokenizer.apply_chat_template(asked, tools=[WEATHER], tokenize=False) == "with tools"
    assert tokenizer.apply_chat_template(asked, tokenize=False) == "<|im_start|>user\nx<|im_end|>\n"


def test_ids_for_generation(vocabulary: Vocabulary) -> None:
    ids = vocabulary.control_ids
    made = tokenizer_files(vocabulary, "llama3", 512)
    generation = json.loads(made.files["generation_config.json"])
    ends = [vocabulary.eos_id, ids["<|eot_id|>"], ids["<|eom_id|>"], ids["<|im_end|>"]]
    assert generation == {
        "bos_token_id": ids["<|begin_of_text|>"],
        "eos_token_id": ends,
        "pad_token_id": vocabulary.pad_id,
    }
    assert transformers.GenerationConfig.from_dict(generation).eos_token_id == ends
    assert token_ids(vocabulary, "none") == TokenIds(vocabulary.bos_id, vocabulary.eos_id, vocabulary.pad_id)
    assert json.loads(made.files["tokenizer_config.json"])["model_max_length"] == 512
    assert made.files["tokenizer.model"] == Path(vocabulary.path).read_bytes()


def test_a_vocabulary_that_is_a_tokenizer_json_is_carried(tmp_path: Path) -> None:
    vocabulary = files.write_spec(
        tmp_path / "a", files.metaspace_spec(), tokenizer_config={"eos_token": "</s>", "x": 1}
    )
    made = tokenizer_files(vocabulary, "none", 100).files
    assert {name: data for name, data in made.items() if name != "generation_config.json"} == {
        path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()
    }
