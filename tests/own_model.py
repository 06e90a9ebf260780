"""A user's own model and data: a small random Llama as somebody else wrote it, and files of conversations and text."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tokenizers
from parameters import reader

from hephaestus_jax.hf.config_files import model_from_json
from hephaestus_jax.hf.exporting import export_model
from hephaestus_jax.model.decoder import init_parameters

SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = """{{- bos_token }}
{%- for tool in tools or [] %}{{- '<|im_start|>tool\\n' + tool | tojson + '<|im_end|>\\n' }}{%- endfor %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
    {%- for call in message.tool_calls or [] %}{{- '\\nCALL ' + call.function | tojson }}{%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
CONFIG: dict[str, Any] = {  # in the older spelling, which most files in the world have
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 0,
    "eos_token_id": [1, 3],
    "hidden_act": "silu",
    "hidden_size": 48,
    "intermediate_size": 96,
    "max_position_embeddings": 512,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 6,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 64,
        "rope_type": "llama3",
    },
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.0",
    "use_cache": True,
    "vocab_size": 512,
    "of_its_own": {"not": ["known", "here"]},
}

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CITIES = ("Ulm", "Oslo", "Lima", "Kyiv", "Bern", "Rome", "Cork", "Baku", "Doha", "Linz")
MALFORMED = '{"messages": [{"role": "user", "content": "and then'


def write_model(folder: Path) -> None:
    """A model in two weight files, with everything that such folders hold besides."""
    model = model_from_json(CONFIG, "config.json")
    params = init_parameters(model, jax.random.key(5))
    stored = reader(params)
    noise = np.random.default_rng(0)

    def read(path: str, index: int | None) -> np.ndarray:
        array = stored(path, index)
        return array * noise.uniform(0.8, 1.2, array.shape).astype(array.dtype)  # norms other than 1

    special = dict(zip(("bos_token", "eos_token"), SPECIAL, strict=False))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **special}
    files = {
        "tokenizer.json": _tokenizer().to_str(pretty=True),
        "tokenizer_config.json": json.dumps({**settings, "clean_up_tokenization_spaces": False}),
        "chat_template.jinja": TEMPLATE,
        "special_tokens_map.json": json.dumps(special),
        "generation_config.json": json.dumps({"bos_token_id": 0, "eos_token_id": [1, 3], "do_sample": True}),
        "README.md": "A model card.\n",
        "LICENSE": "Do what you like.\n",
    }
    encoded = {name: text.encode() for name, text in files.items() if name != "generation_config.json"}
    export_model(folder, model, read, dtype="bfloat16", files=encoded, max_shard_bytes=100_000, progress=False)
    (folder / "generation_config.json").write_text(files["generation_config.json"])
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=4))  # no newline at its end


def _tokenizer() -> tokenizers.Tokenizer:
    """Byte-level BPE of 512 tokens."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"], special_tokens=list(SPECIAL), show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([Path(__file__).read_text("utf-8")] * 2, trainer)
    return tokenizer


def conversation(city: str) -> dict[str, Any]:
    """A row of chat messages with a tool that is called."""
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": city})}}
    messages = [
        {"role": "system", "content": "Answer with the tool's result."},
        {"role": "user", "content": f"What is the weather in {city}?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": f"{len(city)} degrees"},
        {"role": "assistant", "content": f"{city} has {len(city)} degrees."},
    ]
    return {"messages": messages, "tools": [WEATHER], "licence": "CC0-1.0"}


def trajectory(city: str) -> dict[str, Any]:
    """The like as an Agent Data Protocol trajectory."""
    return {
        "schema_version": "1.2.0",
        "id": city,
        "content": [
            {"class_": "text_observation", "content": f"Count the letters of {city}.", "source": "user"},
            {"class_": "code_action", "language": "python", "content": f"len('{city}')", "description": None,
             "tool_call_id": "1"},
            {"class_": "text_observation", "content": str(len(city)), "source": "environment", "tool_call_id": "1"},
            {"class_": "message_action", "content": f"{city} has {len(city)} letters.", "description": None},
        ],
    }  # fmt: skip


def write_data(data: Path, notes: Path) -> None:
    """Conversations and trajectories in `data`, with a held-out split and a row that is malformed; text in `notes`."""
    for folder in (data / "train", data / "validation", notes):
        folder.mkdir(parents=True)
    chats = [json.dumps(conversation(city)) for city in CITIES]
    (data / "train/chats.jsonl").write_text("\n".join([*chats[:3], MALFORMED, *chats[3:]]))
    trajectories = "\n".join(json.dumps(trajectory(city)) for city in CITIES)
    (data / "train/adp.jsonl.gz").write_bytes(gzip.compress(trajectories.encode()))
    (data / "validation/chats.jsonl").write_text(json.dumps(conversation("Bonn")) + "\n")
    texts = (json.dumps({"text": f"{city} is a city. " * 20}) for city in CITIES)
    (notes / "notes.jsonl").write_text("\n".join(texts))
