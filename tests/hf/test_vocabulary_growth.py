"""A grown vocabulary: old rows to the bit, new rows the mean of them, tokenizer and transformers in agreement."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import (
    DTYPES,
    MODELS,
    TIED,
    files_of,
    import_all,
    new_config,
    old_config,
    reader,
    shapes,
    tensors,
    write_model,
)

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "data")]
import own_model
import tokenizer_files

from hephaestus_jax.config import ComputeConfig
from hephaestus_jax.data.vocabularies import load_vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf import layout
from hephaestus_jax.hf.checkpoint import open_checkpoint
from hephaestus_jax.hf.exporting import export_model
from hephaestus_jax.hf.origin import keep_origin
from hephaestus_jax.hf.vocabulary_growth import grow_vocabulary, hub_name, read_growths, unpadded
from hephaestus_jax.hf.vocabulary_size import tokenizer_size
from hephaestus_jax.model.decoder import decode, output_logits
from tools.grow_vocabulary import main

safetensors = pytest.importorskip("safetensors.numpy")
tokenizers = pytest.importorskip("tokenizers")
NEW = ("<|call|>", "<|result|>", "[THINK]")
OLD_IDS = 26  # of the small models' tokenizers, whose embeddings have 29 rows


def write_tokenizer(folder: Path, size: int = OLD_IDS, added: int = 2) -> None:
    """A tokenizer.json of so many ids, the last of them added tokens."""
    vocab = {chr(ord("a") + number): number for number in range(size - added)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
    tokenizer.add_special_tokens([f"<|old{number}|>" for number in range(added)])
    (folder / "tokenizer.json").write_text(tokenizer.to_str())


def stored(folder: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for file in folder.glob("*.safetensors"):
        found |= safetensors.load_file(file)
    return found


grow = functools.partial(grow_vocabulary, progress=False)


@pytest.mark.parametrize("name", MODELS)
def test_only_rows_of_tokens_change(name, tmp_path, monkeypatch):
    """For every family, over several files, in pieces of a few rows."""
    monkeypatch.setattr(layout, "CHUNK_BYTES", 200)
    model = MODELS[name]
    values = {n: np.clip(array, -9, 9).astype(array.dtype) for n, array in tensors(model, ("BF16", "F32")).items()}
    folder = write_model(tmp_path / "in", new_config(model), values, shards=2)
    write_tokenizer(folder)
    (folder / "LICENSE").write_text("free")
    grown = grow(folder, tmp_path / "out", (*NEW, "<|more|>"), 8)
    assert (grown.ids["<|call|>"], grown.tokenizer_size, grown.rows) == (OLD_IDS, 30, 32)

    checkpoint = open_checkpoint(tmp_path / "out")  # whose index, headers and config must agree
    assert checkpoint.model == dataclasses.replace(open_checkpoint(folder).model, vocab_size=32)
    found = stored(tmp_path / "out")
    with_rows = {n for n, shape in shapes(model).items() if shape[0] == model.vocab_size}
    assert len(with_rows) == (1 if model.tied_embeddings else 2)
    for n, before in values.items():
        after = found.pop(n)
        assert after.dtype == before.dtype
        if n in with_rows:
            mean = before[:OLD_IDS].astype(np.float64).mean(0).astype(np.float32).astype(before.dtype)
            assert after[:OLD_IDS].tobytes() == before[:OLD_IDS].tobytes()
            assert after[OLD_IDS:].tobytes() == np.tile(mean, (6, 1)).tobytes(), "new tokens and padding"
        else:
            assert after.tobytes() == before.tobytes()
    assert not found
    same = files_of(folder).items() & files_of(tmp_path / "out").items()
    assert {"LICENSE"} <= dict(same).keys()


def test_padding_that_was_there_stays(tmp_path):
    """Rows without a token become those of new tokens; the ones behind them are left alone."""
    folder = write_model(tmp_path / "in", old_config(TIED), values := tensors(TIED, ("F32",)))
    values["lm_head.weight"] = values["model.embed_tokens.weight"]  # a copy, as some files have it
    shutil.rmtree(folder)
    values = {n: np.clip(array, -9, 9) for n, array in values.items()}
    folder = write_model(tmp_path / "in", old_config(TIED), values)
    write_tokenizer(folder)
    grown = grow(folder, tmp_path / "out", NEW[:2])
    assert (grown.old_rows, grown.rows) == (29, 29)
    assert any("3 rows without a token; 2 of them have one now" in note for note in grown.notes)
    before, after = values["model.embed_tokens.weight"], stored(tmp_path / "out")
    rows = after["model.embed_tokens.weight"]
    assert (rows[:26] == before[:26]).all() and (rows[28] == before[28]).all()
    np.testing.assert_array_equal(rows[26], before[:26].astype(np.float64).mean(0).astype(np.float32))
    assert after["lm_head.weight"].tobytes() == rows.tobytes()
    assert (tmp_path / "out/config.json").read_bytes() == (folder / "config.json").read_bytes()


# ---- the tokenizer


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A Llama of 512 tokens with all the files that such folders hold."""
    folder = tmp_path_factory.mktemp("own") / "model"
    own_model.write_model(folder)
    return folder


@pytest.fixture(scope="module")
def grown(own, tmp_path_factory) -> Path:
    """The same with three more tokens, padded to 576 rows."""
    out = tmp_path_factory.mktemp("grown") / "model"
    main([str(own), str(out), "--tokens", *NEW])
    return out


TEXT = "Call: <|call|>weather<|result|> of [THINK] and <|im_end|>."


def test_transformers_encodes_each_as_one_id_and_computes_the_same(own, grown):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    before, after = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (own, grown))
    assert len(after) == 515 and after.convert_tokens_to_ids(list(NEW)) == [512, 513, 514]
    for number, token in enumerate(NEW, 512):
        assert after(token, add_special_tokens=False).input_ids == [number]
        assert len(before(token, add_special_tokens=False).input_ids) > 1
    ids = after(TEXT).input_ids
    assert [i for i in ids if i >= 512] == [512, 513, 514] and after.decode(ids) == TEXT
    assert "<|call|>" not in after.decode(ids, skip_special_tokens=True)
    plain = "Plain text — as before, 1 < 2 | 3"
    assert before(plain).input_ids == after(plain).input_ids

    models = [transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in (own, grown)]
    assert models[1].get_input_embeddings().weight.shape[0] == 576
    with torch.no_grad():
        small, large = (model(torch.arange(40)[None]).logits for model in models)
    torch.testing.assert_close(large[..., :512], small)
    # the mean row's logit is the mean of the logits: a new token is never likelier than an old one on average
    torch.testing.assert_close(large[..., 512], small.mean(-1), atol=1e-3, rtol=1e-2)
    assert (large.softmax(-1)[..., 512:515] <= large.softmax(-1)[..., :512].mean(-1, keepdim=True) * 1.001).all()


def test_logits_of_old_tokens_are_the_same_to_the_bit(own, grown):
    """With rows in multiples of 64; a matrix product whose last block is not whole may be added up in another order."""
    tokens = jnp.arange(96, dtype=jnp.int32).reshape(2, 48) * 5
    positions = jnp.broadcast_to(jnp.arange(48), (2, 48))
    logits = []
    for folder in (own, grown):
        params, model = import_all(folder), open_checkpoint(folder).model
        with jax.default_matmul_precision("highest"):
            hidden = decode(params, model, ComputeConfig(attention="chunked"), tokens, jnp.ones_like(tokens), positions)
            logits.append(np.asarray(output_logits(params, model, hidden)))
    assert logits[1].shape[-1] == 576 and np.ptp(logits[0]) > 0.1
    assert logits[0].tobytes() == np.ascontiguousarray(logits[1][..., :512]).tobytes()


def test_our_vocabulary_has_them_as_control_tokens(own, grown):
    before, after = load_vocabulary(own), load_vocabulary(grown)
    assert after.size == tokenizer_size(grown) == 515 and before.digest != after.digest
    assert {token: after.control_ids[token] for token in NEW} == {token: 512 + n for n, token in enumerate(NEW)}
    assert (after.bos_id, after.eos_id) == (before.bos_id, before.eos_id)
    old, new = (vocabulary.encode_flat([TEXT])[0] for vocabulary in (before, after))
    np.testing.assert_array_equal(old, new, err_msg="what a text spells stays text")


def test_every_file_that_lists_tokens_is_told(own, tmp_path):
    folder = shutil.copytree(own, tmp_path / "in")
    entry = {"content": "<|im_end|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
             "special": True}  # fmt: skip
    decoder = {"3": entry}
    settings = {"added_tokens_decoder": decoder, "additional_special_tokens": ["<|im_end|>"], "kept": "ж"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text('{"additional_special_tokens": ["<|im_end|>"]}')
    (folder / "added_tokens.json").write_text('{"<|im_end|>": 3}')
    grow(folder, tmp_path / "out", ["<|call|>"])
    read = {name: json.loads(data) for name, data in files_of(tmp_path / "out").items() if name.endswith(".json")}
    decoder["512"] = entry | {"content": "<|call|>"}
    settings["additional_special_tokens"] = ["<|im_end|>", "<|call|>"]
    assert read["tokenizer_config.json"] == settings
    assert read["special_tokens_map.json"] == {"additional_special_tokens": ["<|im_end|>", "<|call|>"]}
    assert read["added_tokens.json"] == {"<|im_end|>": 3, "<|call|>": 512}

    main([str(tmp_path / "out"), str(tmp_path / "again"), "--tokens", "<tool>", "--visible"])
    again = json.loads((tmp_path / "again/tokenizer_config.json").read_text())
    assert again["added_tokens_decoder"]["513"]["special"] is False
    assert again["additional_special_tokens"] == ["<|im_end|>", "<|call|>"]
    assert "<tool>" in load_vocabulary(tmp_path / "again").control_ids
    assert [list(growth["tokens"]) for growth in read_growths(tmp_path / "again")] == [["<|call|>"], ["<tool>"]]


def test_what_a_chat_family_needs(own, tmp_path, capsys):
    (tmp_path / "more").write_text("<|more|>\n")
    arguments = ["--chat", "qwen3", "--tokens_file", str(tmp_path / "more")]
    main([str(own), str(tmp_path / "out"), *arguments])
    assert "512  <|more|>" in capsys.readouterr().out
    added = read_growths(tmp_path / "out")[0]["tokens"]
    assert {"<tool_call>", "</tool_call>"} <= added.keys() and "<|im_start|>" not in added, "which it has"
    assert (tmp_path / "out/chat_template.jinja").read_bytes() == (own / "chat_template.jinja").read_bytes()

    folder = shutil.copytree(own, tmp_path / "without", ignore=shutil.ignore_patterns("chat_template*"))
    main([str(folder), str(tmp_path / "with"), *arguments])
    assert "chat_template.jinja is that of qwen3" in capsys.readouterr().out
    assert "<tool_call>" in (tmp_path / "with/chat_template.jinja").read_text()


@pytest.mark.parametrize(
    ("tokens", "special", "message"),
    [
        (["<|im_end|>"], True, "has it already, with id 3"),
        (["a"], True, "has it already"),
        (["<|x|>", "<|x|>"], True, "given twice"),
        ([" <|x|>"], True, "white space"),
        (["<|\n|>"], True, "printable"),
        ([""], True, "printable"),
        (["a call"], False, "spelt as a marker"),
        (["recalling"], True, "spelt as a marker"),
    ],
)
def test_spellings_that_cannot_be_tokens(tokens, special, message, own, tmp_path):
    with pytest.raises(UserError, match=message):
        grow(own, tmp_path / "out", tokens, special=special)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_grown(own, tmp_path):
    folder = shutil.copytree(own, tmp_path / "in")
    spec = json.loads((folder / "tokenizer.json").read_text())
    gap = json.loads(json.dumps(spec))
    gap["added_tokens"].append({**gap["added_tokens"][0], "content": "<|far|>", "id": 700})
    (folder / "tokenizer.json").write_text(json.dumps(gap))
    with pytest.raises(UserError, match="gaps among its ids: <\\|far\\|> would become 512 rather than 700"):
        grow(folder, tmp_path / "out", ["<|x|>"])
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer.json with ids"):
        grow(folder, tmp_path / "out", ["<|x|>"])
    with pytest.raises(UserError, match="multiple 0"):
        grow(own, tmp_path / "out", ["<|x|>"], 0)


# ---- tokenizer and embedding


def test_a_mismatch_is_an_error_that_growth_mends(tmp_path):
    values = {n: np.clip(array, -9, 9) for n, array in tensors(TIED, ("F32",)).items()}
    folder = write_model(tmp_path / "in", old_config(TIED), values)
    write_tokenizer(folder, size=31, added=3)
    with pytest.raises(UserError, match=r"31 ids, the embedding beside it 29 rows: .*tools.grow_vocabulary") as error:
        import_all(folder)
    assert str(folder) in str(error.value)
    with pytest.raises(UserError, match="grow_vocabulary"):
        keep_origin(folder, tmp_path / "origin")
    grown = grow(folder, tmp_path / "out")
    assert (grown.ids, grown.rows) == ({}, 31) and "2 ids without a row" in grown.notes[-1]
    rows = stored(tmp_path / "out")["model.embed_tokens.weight"]
    assert (rows[29:] == values["model.embed_tokens.weight"].astype(np.float64).mean(0).astype(np.float32)).all()
    import_all(tmp_path / "out")


def test_image_tokens_of_a_text_model_need_no_row(own, tmp_path):
    """Gemma 3 of 1B: the tokenizer has <image_soft_token> as its last id, the embedding has no row for it."""
    folder = shutil.copytree(own, tmp_path / "in")
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["added_tokens"].append({**spec["added_tokens"][0], "content": "<image_soft_token>", "id": 512})
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    assert tokenizer_size(folder) == load_vocabulary(folder).size == 512
    import_all(folder)
    text = "an <image_soft_token> as text"
    np.testing.assert_array_equal(
        load_vocabulary(folder).encode_flat([text])[0], load_vocabulary(own).encode_flat([text])[0]
    )
    grown = grow(folder, tmp_path / "out", ["<|call|>"])
    assert (grown.ids, grown.rows) == ({"<|call|>": 513}, 514) and load_vocabulary(tmp_path / "out").size == 514


def test_a_sentencepiece_model_gets_a_tokenizer_json(tmp_path):
    vocabulary = tokenizer_files.vocabulary("trained")
    model = dataclasses.replace(TIED, vocab_size=vocabulary.size)
    values = {n: np.clip(array, -9, 9) for n, array in tensors(model, ("F32",)).items()}
    folder = write_model(tmp_path / "in", old_config(model), values)
    shutil.copy(vocabulary.path, folder / "tokenizer.model")
    grown = grow(folder, tmp_path / "out", NEW)
    assert "tokenizer.json was made from tokenizer.model" in grown.notes
    larger = load_vocabulary(tmp_path / "out")
    assert [larger.control_ids[token] for token in NEW] == [vocabulary.size + n for n in range(3)]
    np.testing.assert_array_equal(larger.encode_flat([TEXT])[0], vocabulary.encode_flat([TEXT])[0])


@pytest.mark.parametrize("case", ["untied", "tied with a copy"])
def test_an_export_leaves_padding_out(case, tmp_path):
    """Padded, imported and exported again, it is what growth without padding gives, but for the record of it."""
    model = MODELS["llama"] if case == "untied" else TIED
    values = tensors(model, ("BF16", "F16"))
    if case != "untied":
        values["lm_head.weight"] = values["model.embed_tokens.weight"]
    values = {n: np.clip(array, DTYPES["BF16"].type(-9), DTYPES["BF16"].type(9)).astype(array.dtype)
              for n, array in values.items()}  # fmt: skip
    folder = write_model(tmp_path / "in", old_config(model), values, shards=2)
    write_tokenizer(folder)
    grow(folder, tmp_path / "plain", [*NEW, "<|more|>"])
    grow(folder, tmp_path / "padded", [*NEW, "<|more|>"], 64)
    origin, params = keep_origin(tmp_path / "padded", tmp_path / "origin"), import_all(tmp_path / "padded")
    size = tokenizer_size(origin.folder)
    assert size is not None and (size, origin.config.model.vocab_size) == (30, 64)
    padded, read = origin.config.model, reader(params)
    export_model(tmp_path / "whole", padded, read, origin, progress=False)
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "padded")
    export_model(tmp_path / "out", *unpadded(padded, read, origin, size), progress=False)
    ours, theirs = files_of(tmp_path / "out"), files_of(tmp_path / "plain")
    assert ours.pop("vocabulary_growth.json") != theirs.pop("vocabulary_growth.json")
    index = "model.safetensors.index.json"
    assert json.loads(ours.pop(index)) == json.loads(theirs.pop(index))
    assert ours == theirs
    with pytest.raises(UserError, match="65 ids, the embedding 64 rows"):
        unpadded(padded, read, origin, 65)
    scratch, _, none = unpadded(padded, read, None, 30)
    assert (scratch.vocab_size, none) == (30, None)


def test_names_on_the_hub_are_told_from_its_cache():
    path = "/home/me/.cache/huggingface/hub/models--meta-llama--Llama-3.1-8B/snapshots/d04e592bb4f6/"
    assert hub_name(path) == ("meta-llama/Llama-3.1-8B", "d04e592bb4f6")
    assert hub_name("/models/Llama-3.1-8B") == ("", "")
