"""Chat templates of tokenizer directories: ids of `apply_chat_template`, weights to the character, clear refusals."""

from __future__ import annotations

import json
import pickle
import sys

import pytest
from chat_conversations import CONTROLS, EDGES, PROVENANCE, TEXTS, Script, Taste, encode, scripts, weighted_text

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.chat import chat_renderer
from hephaestus_jax.formats.chat.conversation import conversation_of
from hephaestus_jax.formats.records import ApiAction, MessageAction, TextObservation, Tool, Trajectory

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

CHATML = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- 'Tools:' }}
    {%- for tool in tools %}{{- '\\n' + tool | tojson }}{%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if message.reasoning_content %}
            {{- '<think>\\n' + message.reasoning_content.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- message.content }}
        {%- for call in message.tool_calls or [] %}
            {%- if (loop.first and message.content) or not loop.first %}{{- '\\n' }}{%- endif %}
            {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

LLAMA = """{{- bos_token }}
{%- set date = date_string if date_string is defined else '26 Jul 2024' %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = '' %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + date + '\\n\\n' + system + '<|eot_id|>' }}
{%- if tools is not none %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' }}
    {%- for tool in tools %}{{- tool | tojson(indent=4) + '\\n\\n' }}{%- endfor %}
    {{- '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
        {%- if message.content is mapping %}{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}
        {{- '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if message.tool_calls | length != 1 %}
            {{- raise_exception('This model only supports single tool-calls at once!') }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
        {{- '{"name": "' + call.name + '", "parameters": ' + call.arguments | tojson + '}<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""

MISTRAL = """{{- bos_token }}
{%- set seen = namespace(user=false) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- if tools and not seen.user %}{{- '[AVAILABLE_TOOLS]' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{%- endif %}
        {%- set prompt = messages[0].content + '\n\n' if messages[0].role == 'system' and not seen.user else '' %}
        {%- set seen.user = true %}
        {{- '[INST] ' + prompt + message.content + '[/INST]' }}
    {%- elif message.role == 'assistant' and message.tool_calls %}
        {{- '[TOOL_CALLS] [' }}
        {%- for call in message.tool_calls %}
            {{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' + ('' if loop.last else ', ') }}
        {%- endfor %}
        {{- ']' + eos_token }}
    {%- elif message.role == 'assistant' %}{{- ' ' + message.content + eos_token }}
    {%- elif message.role == 'tool' %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content | tojson + ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}
"""  # noqa: E501

GENERATION = """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{- message.content + '<|im_end|>' }}{%- endgeneration %}
    {%- else %}{{- message.content + '<|im_end|>' }}{%- endif %}
    {{- '\\n' }}
{%- endfor %}
"""

ADDED = {
    CHATML: ("<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    LLAMA: ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    MISTRAL: ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
              "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    GENERATION: ("<|im_start|>", "<|im_end|>"),
}  # fmt: skip
SPECIAL = {
    CHATML: {"eos_token": "<|im_end|>"},
    LLAMA: {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    MISTRAL: {"bos_token": "<s>", "eos_token": "</s>"},
    GENERATION: {"eos_token": "<|im_end|>"},
}


def byte_level_tokenizer() -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([*TEXTS, CHATML, LLAMA, MISTRAL] * 3, trainer)
    return tokenizer


def save(folder, template: str | None, added=None, special=None, **more) -> str:
    """A tokenizer directory, written as the files in the world are: the template in tokenizer_config.json."""
    from tokenizers import AddedToken

    tokenizer = byte_level_tokenizer()
    tokens = ADDED.get(template, ("<|im_start|>", "<|im_end|>")) if added is None else added
    # as in Qwen's files, marks of calls are added tokens that are not special
    tokenizer.add_special_tokens([token for token in tokens if not token.startswith(("<tool", "</tool"))])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in tokens if t.startswith(("<tool", "</tool"))])
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **(special or SPECIAL.get(template, {})), **more}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def openai_messages(script: Script) -> list[dict]:
    """The script as `transformers` takes it."""
    messages = [{"role": "system", "content": script.system}] if script.system else []
    for message in script.messages:
        calls = [
            {"type": "function", "id": c["id"], "function": {"name": c["name"], "arguments": c["arguments"]}}
            for c in message.get("calls", ())
        ]
        message = {key: value for key, value in message.items() if key != "calls"}
        messages.append({**message, "tool_calls": calls} if calls else message)
    return messages


def openai_tools(script: Script) -> list[dict] | None:
    return [{"type": "function", "function": tool} for tool in script.tools] or None


TASTES = {
    "chatml": (CHATML, Taste(texts=TEXTS + EDGES)),
    "llama": (LLAMA, Taste(texts=TEXTS + EDGES, parallel=False, text_with_calls=False)),
    "mistral": (MISTRAL, Taste(texts=TEXTS + EDGES, text_with_calls=False)),
    "generation": (GENERATION, Taste(texts=TEXTS + EDGES, calls=False)),
}


@pytest.mark.parametrize("which", TASTES)
@pytest.mark.parametrize("train_on", ["all", "assistant"])
def test_ids_equal_apply_chat_template(tmp_path, which, train_on):
    template, taste = TASTES[which]
    folder = save(tmp_path / which, template)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    renderer = chat_renderer(f"template_file:{folder}", train_on=train_on)
    controls = {name: tokenizer.convert_tokens_to_ids(name) for name in renderer.controls}
    assert set(ADDED[template]) == set(controls)
    plain = byte_level_tokenizer()
    under_loss = 0
    for script in scripts(100, taste, seed=7):
        messages, tools = openai_messages(script), openai_tools(script)
        expected = tokenizer.apply_chat_template(messages, tools=tools, tokenize=True)["input_ids"]
        rendering = renderer.render(script.trajectory())
        assert rendering.text == tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
        assert encode(rendering, controls, lambda text: plain.encode(text).ids) == expected
        said = [message["content"] for message in script.messages if message["role"] == "assistant"]
        spans = [span for span in rendering.spans if span.weight]
        under_loss += sum(len(span.text) for span in spans)
        if train_on == "assistant":
            assert {span.kind for span in spans} <= {"assistant", "template"}
            weighted = weighted_text(rendering)
            assert all(text.strip() in weighted for text in said)
    assert under_loss > 10_000


@pytest.mark.parametrize("which", TASTES)
def test_text_that_spells_controls_stays_text(tmp_path, which):
    template, taste = TASTES[which]
    renderer = chat_renderer(f"template_file:{save(tmp_path / which, template)}", train_on="assistant")
    texts = CONTROLS + EDGES
    for script in scripts(60, Taste(texts, taste.calls, taste.parallel, taste.text_with_calls), seed=3):
        rendering = renderer.render(script.trajectory())
        harmless = renderer.render(_without_angles(script).trajectory())
        template_text, harmless_text = (
            [c for span in r.spans if span.kind == "template" for c in _controls(span.text, renderer.controls)]
            for r in (rendering, harmless)
        )
        assert template_text == harmless_text


def _controls(text: str, controls) -> list[str]:
    import re

    return re.findall("|".join(map(re.escape, sorted(controls, key=len, reverse=True))), text)


def _without_angles(script: Script) -> Script:
    def mend(value):
        if isinstance(value, str):
            return value.translate(str.maketrans("<>[]", "().,"))
        if isinstance(value, dict):
            return {k: mend(v) for k, v in value.items()}
        return [mend(v) for v in value] if isinstance(value, list) else value

    return Script(mend(script.system), mend(script.messages), script.tools)


STEPS = (
    TextObservation("question ", "user"),
    MessageAction(" \nlet me see", reasoning_content="secret"),
    ApiAction("wrong", {"x": 1}, tool_call_id="aaaaaaaaa", outcome="error"),
    ApiAction("right", {"x": 2}, tool_call_id="bbbbbbbbb"),
    TextObservation("failed", "environment", "aaaaaaaaa"),
    TextObservation("fine", "environment", "bbbbbbbbb"),
    MessageAction("answer <|im_end|> answer\n"),
)
TRAJECTORY = Trajectory(STEPS, PROVENANCE, (Tool("right"),), system="system prompt")


def test_weights_to_the_character(tmp_path):
    renderer = chat_renderer(f"template_file:{save(tmp_path / 'a', CHATML)}", train_on="assistant")
    rendering = renderer.render(TRAJECTORY)
    assert weighted_text(rendering) == (
        "<think>\nsecret\n</think>\n\n \nlet me see¦"
        'right", "arguments": {"x": 2}}\n</tool_call><|im_end|>¦'
        "answer <|im_end|> answer\n<|im_end|>"
    )
    carried = "".join(span.text for span in rendering.spans[: rendering.carry])
    assert carried.startswith("<|im_start|>system\nsystem prompt") and carried.endswith("}}}<|im_end|>\n")
    everything = renderer.from_directory(tmp_path / "a", train_on="all", thoughts=False).render(TRAJECTORY)
    before, behind = everything.text.split("wrong", 1)
    before = before.removesuffix('\n<tool_call>\n{"name": "')
    assert weighted_text(everything) == before + "¦" + behind[behind.index('right"') :]


def test_weights_of_a_template_without_generation_prompt(tmp_path):
    steps = (STEPS[0], *STEPS[2:6], MessageAction("one"), TextObservation("b", "user"), MessageAction("two"))
    folder = save(tmp_path / "a", MISTRAL)
    rendering = chat_renderer(f"template_file:{folder}", train_on="assistant").render(
        Trajectory(steps, PROVENANCE, (Tool("right"),))
    )
    assert weighted_text(rendering) == ('right", "arguments": {"x": 2}, "id": "bbbbbbbbb"}]</s>¦ one</s>¦ two</s>')
    carried = "".join(span.text for span in rendering.spans[: rendering.carry])
    assert carried.startswith("<s>[AVAILABLE_TOOLS]") and carried.endswith("[/AVAILABLE_TOOLS]")
    everything = chat_renderer(f"template_file:{folder}").render(Trajectory(steps, PROVENANCE))
    assert (everything.spans[0].text, everything.spans[0].weight) == ("<s>", 0)


def test_generation_blocks_decide_where_there_are_any(tmp_path):
    folder = save(tmp_path / "a", GENERATION)
    steps = (TextObservation("q", "user"), MessageAction(" a\n"), MessageAction("b", outcome="error"))
    rendering = chat_renderer(f"template_file:{folder}", train_on="assistant").render(Trajectory(steps, PROVENANCE))
    assert rendering.text == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n a\n\n\nb<|im_end|>\n"
    assert weighted_text(rendering) == " a\n"


@pytest.mark.parametrize("text", ["\U000f0000icon\U00100000", "\U000f0001"])
def test_private_use_characters_of_the_conversation_survive(tmp_path, text):
    renderer = chat_renderer(f"template_file:{save(tmp_path / 'a', CHATML)}", train_on="assistant")
    rendering = renderer.render(Trajectory((TextObservation(text, "user"), MessageAction(text)), PROVENANCE))
    assert weighted_text(rendering) == f"{text}<|im_end|>"
    assert rendering.text.count(text) == 2


def test_template_files_in_every_place_they_are_kept(tmp_path):
    folder = tmp_path / "a"
    named = [{"name": "default", "template": GENERATION}, {"name": "tool_use", "template": CHATML}]
    save(folder, None, special={"eos_token": {"content": "<|im_end|>", "lstrip": False}}, chat_template=named)
    renderer = chat_renderer(f"template_file:{folder}")
    assert "Tools:" in renderer.render(TRAJECTORY).text
    with pytest.raises(UserError, match="kind 'assistant' .turn 1.; pass lossy=True"):
        chat_renderer(f"template_file:{save(tmp_path / 'b', GENERATION)}").render(TRAJECTORY)
    assert "let me see<|im_end|>" in renderer.render(Trajectory(STEPS[:2], PROVENANCE)).text
    (folder / "chat_template.jinja").write_text("{{ eos_token }}" + CHATML, encoding="utf-8")
    changed = chat_renderer(f"template_file:{folder}")
    assert changed.render(TRAJECTORY).text.startswith("<|im_end|><|im_start|>system")
    assert changed.fingerprint() != renderer.fingerprint()
    assert pickle.loads(pickle.dumps(changed)).fingerprint() == changed.fingerprint()


def test_dates_and_variables_are_told_not_taken_from_the_clock(tmp_path):
    folder = save(tmp_path / "a", GENERATION.replace("{%- for", "{{- strftime_now('%d %b %Y') }}{%- for", 1))
    with pytest.raises(UserError, match="asks for today's date"):
        chat_renderer(f"template_file:{folder}").render(TRAJECTORY)
    dated = chat_renderer(f"template_file:{folder}", today="2024-07-26")
    assert dated.render(Trajectory(STEPS[:2], PROVENANCE)).text.startswith("26 Jul 2024<|im_start|>user")
    with pytest.raises(UserError, match="is no date"):
        chat_renderer(f"template_file:{folder}", today="yesterday")
    llama = chat_renderer(f"template_file:{save(tmp_path / 'b', LLAMA)}", variables={"date_string": "1 Jan 2000"})
    assert "Today Date: 1 Jan 2000" in llama.render(Trajectory(STEPS[:1], PROVENANCE)).text


def test_texts_that_a_template_leaves_out_are_an_error_unless_allowed(tmp_path):
    folder = save(tmp_path / "a", LLAMA)
    said_and_called = (STEPS[0], STEPS[1], STEPS[3], STEPS[5])
    trajectory = Trajectory(said_and_called, PROVENANCE)
    with pytest.raises(UserError, match="leaves out a text of kind 'assistant'"):
        chat_renderer(f"template_file:{folder}").render(trajectory)
    lossy = chat_renderer(f"template_file:{folder}", train_on="assistant", lossy=True).render(trajectory)
    assert weighted_text(lossy) == '{"name": "right", "parameters": {"x": 2}}<|eot_id|>'
    with pytest.raises(UserError, match="leaves out a text of kind 'tools'"):
        renderer = chat_renderer(f"template_file:{save(tmp_path / 'b', GENERATION)}")
        renderer.render(Trajectory(STEPS[:2], PROVENANCE, (Tool("right"),)))


REFUSED = {
    "refuses": (CHATML.replace("{%- if tools", "{{- raise_exception('no\\nway') }}{%- if tools", 1), "no way"),
    "fails": (CHATML.replace("messages[0].role", "messages[0].role.x.y", 1), "does not take this conversation"),
    "changes": (CHATML.replace("{{- message.content }}", "{{- message.content[1:] }}"), "unchanged"),
    "no end": (CHATML.replace("'<|im_end|>\\n'", "'\\n'"), "ends an assistant's turn with no token"),
    "unsafe": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "does not take this conversation"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_what_cannot_be_rendered_is_refused_with_the_reason(tmp_path, which):
    template, words = REFUSED[which]
    renderer = chat_renderer(f"template_file:{save(tmp_path / 'a', template)}")
    with pytest.raises(UserError, match=words) as error:
        renderer.render(TRAJECTORY)
    assert "\n" not in str(error.value)


def test_malformed_directories_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        chat_renderer(f"template_file:{tmp_path}/absent")
    with pytest.raises(UserError, match="no chat template"):
        chat_renderer(f"template_file:{save(tmp_path / 'a', None)}")
    with pytest.raises(UserError, match="not valid Jinja: line 1"):
        chat_renderer(f"template_file:{save(tmp_path / 'b', '{% if %}')}")
    (tmp_path / "a" / "tokenizer_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read"):
        chat_renderer(f"template_file:{tmp_path}/a")


def test_added_tokens_that_are_mere_text_are_no_controls(tmp_path):
    folder = save(tmp_path / "a", CHATML)
    path = tmp_path / "a" / "tokenizer.json"
    content = json.loads(path.read_text())
    for spelling in ("\n", "\n\n", "  ", "user", "<table>"):
        content["added_tokens"].append({**content["added_tokens"][-1], "id": 900, "content": spelling})
    path.write_text(json.dumps(content))
    renderer = chat_renderer(f"template_file:{folder}", train_on="assistant")
    assert set(renderer.controls) == set(ADDED[CHATML])
    assert weighted_text(renderer.render(TRAJECTORY)).endswith("¦answer <|im_end|> answer\n<|im_end|>")


def test_tokens_that_strip_their_surroundings_are_refused(tmp_path):
    folder = save(tmp_path / "a", CHATML)
    path = tmp_path / "a" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"][0]["rstrip"] = True
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="strips white space"):
        chat_renderer(f"template_file:{folder}")


def test_the_messages_are_those_of_openai(tmp_path):
    renderer = chat_renderer(f"template_file:{save(tmp_path / 'a', CHATML)}")
    for script in scripts(50, Taste(), seed=11):
        conversation = conversation_of(script.trajectory())
        assert renderer.messages(conversation) == openai_messages(script)
        assert renderer.tools(conversation) == openai_tools(script)


def test_unknown_options_and_a_missing_library_are_errors(tmp_path, monkeypatch):
    folder = save(tmp_path / "a", CHATML)
    with pytest.raises(UserError, match="no option 'version'"):
        chat_renderer(f"template_file:{folder}", version="3")
    monkeypatch.delitem(sys.modules, "hephaestus_jax.formats.chat.template_file")
    monkeypatch.delitem(sys.modules, "hephaestus_jax.formats.chat.jinja_template")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UserError, match="need jinja2"):
        chat_renderer(f"template_file:{folder}")
