"""Weights that come in go out bit for bit, or in the dtype asked for; into any sharding."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from small_models import (
    MODEL,
    MODELS,
    TIED,
    UP,
    export,
    files_of,
    import_all,
    new_config,
    old_config,
    random_bits,
    reader,
    run_process,
    shapes,
    tensors,
    write_model,
)

from hephaestus_jax.checkpoints.storage import named_leaves
from hephaestus_jax.hf import layout
from hephaestus_jax.hf.checkpoint import open_checkpoint
from hephaestus_jax.hf.compare import compare_models, view_export, view_folder
from hephaestus_jax.hf.config_files import TokenIds, read_config
from hephaestus_jax.hf.exporting import export_model
from hephaestus_jax.hf.families import family_of
from hephaestus_jax.hf.importing import import_parameters, narrowed, stored_dtypes
from hephaestus_jax.hf.origin import keep_origin
from hephaestus_jax.model.decoder import abstract_parameters

BUFFER = "model.layers.1.self_attn.rotary_emb.inv_freq"
OTHER_FILES = {
    "generation_config.json": b'{"temperature": 0.6}',
    "chat_template.jinja": "{{ messages }} ⚒".encode(),
    "tokenizer.model": bytes(range(256)),
    "tokenizer_config.json": b"{ }\n\n",
    "original/params.json": b"{}",
    ".gitattributes": b"*.safetensors filter=lfs\n",
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks of a row or two, so that small tensors have many."""
    monkeypatch.setattr(layout, "CHUNK_BYTES", 200)


CASES = {
    "one file, BF16, old": (MODEL, old_config, ("BF16",), 1),
    "mixed dtypes over three files, new": (MODEL, new_config, ("BF16", "F32", "F16"), 3),
    "tied, F16 over two files": (TIED, old_config, ("F16",), 2),
    "tied, F32, new": (TIED, new_config, ("F32",), 1),
    **{family: (model, old_config if number % 2 else new_config, ("F16", "BF16", "F32"), 2)
       for number, (family, model) in enumerate(MODELS.items())},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_untouched_model_comes_back_byte_for_byte(case, tmp_path):
    model, config, dtypes, shards = CASES[case]
    values = tensors(model, dtypes)
    values[BUFFER] = random_bits(np.random.default_rng(1), "F32", (4,))
    if model.tied_embeddings and dtypes != ("F32",):
        values["lm_head.weight"] = values["model.embed_tokens.weight"]
    folder = write_model(tmp_path / "in", config(model), values, shards)
    for name, data in OTHER_FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "pytorch_model.bin").write_bytes(b"left out, and said")
    if shards == 1:
        reword_header(folder / "model.safetensors")

    exported = export(folder, tmp_path / "out", import_all(folder))

    wanted = files_of(folder)
    del wanted["pytorch_model.bin"]
    assert files_of(tmp_path / "out") == wanted
    assert not any("rounded" in note for note in exported.notes)
    assert any("pytorch_model.bin" in note for note in exported.notes)
    assert list(compare_models(view_folder(folder), view_folder(tmp_path / "out"), progress=False)) == []


def reword_header(path):
    """The same file with a header as another writer might put it: spaces, names in another order, no padding."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    raw = json.dumps(dict(reversed(header.items())), indent=1).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data[8 + length :])


def test_an_origin_is_kept_again_from_a_kept_one(tmp_path):
    values = tensors(MODEL) | {BUFFER: np.ones(4, np.float32)}
    folder = write_model(tmp_path / "in", old_config(MODEL), values, 2)
    first = keep_origin(folder, tmp_path / "first")
    params = import_all(folder)
    shutil.rmtree(folder)
    second = keep_origin(tmp_path / "first", tmp_path / "second")
    keep_origin(tmp_path / "first", tmp_path / "second")  # again, as a run does that was killed at its start
    assert files_of(first.folder) == files_of(second.folder)
    export_model(tmp_path / "out", MODEL, reader(params), second, progress=False)
    assert open_checkpoint(tmp_path / "out").buffers == (BUFFER,)


def test_parameters_are_the_tensors_rearranged(tmp_path):
    values = tensors(MODEL, ("BF16", "F32"))
    params = import_all(write_model(tmp_path / "in", old_config(MODEL), values, 2))
    for layer in range(MODEL.num_layers):
        place = f"model.layers.{layer}."
        attention = params["layers"]["attention"]
        for name, heads in (("query", 4), ("key", 2), ("value", 2)):
            stored = values[f"{place}self_attn.{name[0]}_proj.weight"].astype(np.float32)  # [heads · H, D]
            for head in range(heads):
                wanted = stored[head * 8 : head * 8 + 8].T
                np.testing.assert_array_equal(attention[name]["kernel"][layer, :, head], wanted)
        stored = values[f"{place}self_attn.o_proj.weight"].astype(np.float32)
        np.testing.assert_array_equal(attention["out"]["kernel"][layer].reshape(32, 24), stored.T)
        for name in ("gate", "up", "down"):
            stored = values[f"{place}mlp.{name}_proj.weight"].astype(np.float32)
            np.testing.assert_array_equal(params["layers"]["mlp"][name]["kernel"][layer], stored.T)
    np.testing.assert_array_equal(params["head"]["kernel"], values["lm_head.weight"].astype(np.float32).T)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_two_ways_to_fill_arrays_give_the_same(dtype, tmp_path, monkeypatch):
    """Accelerators get layer by layer; here a CPU is made to."""
    from hephaestus_jax.hf import importing

    values = {name: array.clip(-1e38, 1e38) for name, array in tensors(MODEL, ("BF16", "F32")).items()}
    folder = write_model(tmp_path / "in", old_config(MODEL), values, 2)
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=jax.sharding.SingleDeviceSharding(
            jax.devices()[0])), abstract_parameters(MODEL, dtype),
    )  # fmt: skip
    on_host = import_parameters(folder, abstract, progress=False)
    monkeypatch.setattr(importing, "HostArray", importing.DeviceArray)
    on_device = import_parameters(folder, abstract, progress=False)
    for one, other, wanted in zip(*map(jax.tree.leaves, (on_host, on_device, abstract)), strict=True):
        assert one.dtype == other.dtype == wanted.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_a_narrower_dtype_rounds_to_nearest_even_and_is_said(tmp_path):
    values = tensors(MODEL, ("F32", "BF16"))
    values["model.norm.weight"] = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1e-40] * 8, np.float32)
    folder = write_model(tmp_path / "in", old_config(MODEL), values)
    params = import_all(folder, "bfloat16")
    scale = np.asarray(params["final_norm"]["scale"])
    assert scale.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(scale[:2].astype(np.float32), [1.0, 1 + 2**-6])
    assert scale[2].astype(np.float32) != 0, "subnormal numbers are kept"
    rounded = narrowed(open_checkpoint(folder), abstract_parameters(MODEL, "bfloat16"))
    assert "model.norm.weight: F32 to bfloat16" in rounded and len(rounded) < len(values)
    assert narrowed(open_checkpoint(folder), abstract_parameters(MODEL)) == []


def test_stored_dtypes_hold_every_layer(tmp_path):
    values = tensors(TIED, ("BF16",))
    values["model.norm.weight"] = values["model.norm.weight"].view(np.float16)
    values[UP] = values[UP].view(np.float16)
    found = stored_dtypes(open_checkpoint(write_model(tmp_path / "in", old_config(TIED), values)))
    assert found.pop("final_norm/scale") == "float16"
    assert found.pop("layers/mlp/up/kernel") == "float32", "two layers are bfloat16, one is float16"
    assert set(found.values()) == {"bfloat16"}


# ---- trained parameters


def test_trained_parameters_go_out_in_the_origins_dtypes_or_the_one_asked_for(tmp_path):
    values = tensors(MODEL, ("BF16", "F32")) | {BUFFER: np.ones(4, np.float32)}
    folder = write_model(tmp_path / "in", new_config(MODEL), values, 2)
    rng = np.random.default_rng(2)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), import_all(folder))

    exported = export(folder, tmp_path / "as-read", params)
    assert any("float32 to BF16" in note for note in exported.notes)
    dtypes = {name: tensor.dtype for name, tensor in open_checkpoint(tmp_path / "as-read").tensors.items()}
    assert dtypes == {name: "F32" if array.dtype == np.float32 else "BF16" for name, array in values.items()}
    assert (tmp_path / "as-read" / "config.json").read_bytes() == (folder / "config.json").read_bytes()

    for dtype, name in (("float32", "F32"), ("float16", "F16"), ("bfloat16", "BF16")):
        out = tmp_path / dtype
        exported = export(folder, out, params, dtype)
        read = open_checkpoint(out)
        assert read.tensors[BUFFER].dtype == "F32", "no weight"
        assert {tensor.dtype for tensor in read.tensors.values() if tensor.name != BUFFER} == {name}
        assert read.config.raw == read_config(folder).raw | {"dtype": dtype}
        index = json.loads((out / "model.safetensors.index.json").read_bytes())
        assert index["metadata"]["note"] == "kept" and index["metadata"]["total_size"] == read.weight_bytes
        kernel = params["head"]["kernel"].T.astype(np.dtype(name.lower().replace("bf16", "bfloat16")
                                                            if name == "BF16" else dtype))  # fmt: skip
        stored = safetensors_of(out)["lm_head.weight"]
        assert stored == np.ascontiguousarray(kernel).tobytes()


def safetensors_of(folder):
    """Bytes of every tensor, by the reference implementation."""
    import safetensors as reference

    found = {}
    for path in folder.glob("*.safetensors"):
        found |= {name: bytes(entry["data"]) for name, entry in reference.deserialize(path.read_bytes())}
    return found


def test_a_model_that_began_here(tmp_path):
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), abstract_parameters(MODEL))
    files = {"tokenizer.json": b"{}"}
    out = tmp_path / "out"
    exported = export_model(
        out, MODEL, reader(params), files=files, ids=TokenIds(1, 2), max_shard_bytes=9000, progress=False
    )
    read = open_checkpoint(out)
    assert (read.model, dict(read.config.raw)["eos_token_id"]) == (MODEL, 2)
    assert len(exported.files) > 2 and (out / "tokenizer.json").read_bytes() == b"{}"
    assert {tensor.dtype for tensor in read.tensors.values()} == {"F32"}
    assert "F32" in exported.notes[0]
    view = view_export("run", MODEL, reader(params), None)
    assert list(compare_models(view, view_folder(out), progress=False)) == []


def test_a_changed_architecture_changes_only_those_fields(tmp_path):
    folder = write_model(tmp_path / "in", new_config(MODEL), tensors(MODEL))
    longer = dataclasses.replace(MODEL, max_positions=1024)
    exported = export(folder, tmp_path / "out", import_all(folder), model=longer)
    assert open_checkpoint(tmp_path / "out").config.raw == new_config(longer)
    assert any("config.json was changed" in note for note in exported.notes)


def test_differences_are_found_and_placed(tmp_path):
    values = tensors(MODEL)
    folder = write_model(tmp_path / "a", old_config(MODEL), values)
    values["model.norm.weight"][[3, 5]] *= -1
    values["lm_head.weight"] = values["lm_head.weight"].astype(np.float32)
    other = write_model(tmp_path / "b", old_config(MODEL) | {"torch_dtype": "float32"}, values, 2)
    (other / "tokenizer.json").write_bytes(b"{}")
    assert list(compare_models(view_folder(folder), view_folder(other), progress=False)) == [
        'config.json: torch_dtype is "bfloat16" and "float32"',
        f"file tokenizer.json: only in {other}",
        "tensor lm_head.weight: is BF16[29, 24] and F32[29, 24]",
        "tensor model.norm.weight: 2 of 24 values differ, the first at [3]",
    ]


def test_any_sharding_gives_the_same_values(tmp_path):
    """On eight devices, in a process without PyTorch, transformers, safetensors and tokenizers."""
    write_model(tmp_path / "in", old_config(MODEL), tensors(MODEL, ("BF16", "F32")), 2)
    process = run_process("sharded_process", tmp_path / "in")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.splitlines() == ["layers over fsdp", "heads over tensor", "head dimension over tensor",
                                   "replicated", "layer by layer"]  # fmt: skip


@pytest.mark.parametrize("model", [*MODELS.values(), TIED], ids=[*MODELS, "tied"])
def test_shapes_of_the_helper_are_those_of_the_map(model):
    """The map and the tests name the tensors independently of each other."""
    places = family_of(model).tensor_places(model)
    ours = {name: weight.tensor_shape(model) for name, (weight, _) in places.items()}
    assert ours == shapes(model) and list(ours) == list(shapes(model))
    abstract = named_leaves(abstract_parameters(model))
    assert {weight.path: weight.our_shape(model) for weight, _ in places.values()} == {
        path: leaf.shape for path, leaf in abstract.items()
    }
