"""What stops an import or an export: one line that names it, and nothing left under the final name."""

from __future__ import annotations

import dataclasses
import json

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
    old_config,
    reader,
    run_process,
    shapes,
    tensors,
    write_model,
)

from hephaestus_jax.errors import UserError
from hephaestus_jax.hf import layout
from hephaestus_jax.hf.exporting import export_model
from hephaestus_jax.hf.importing import import_parameters
from hephaestus_jax.hf.origin import keep_origin, load_origin
from hephaestus_jax.model.decoder import abstract_parameters


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks of a row or two, so that small tensors have many."""
    monkeypatch.setattr(layout, "CHUNK_BYTES", 200)


# ---- what stops an import


def drop(name):
    return lambda values: values.pop(name)


def put(name, make):
    return lambda values: values.__setitem__(name, make(values.get(name)))


def spoil(name, value, place=(1, 3)):
    def change(values):
        values[name] = values[name].copy()
        values[name][place] = value

    return change


BAD_TENSORS = {
    "missing": (drop(UP), UP, "is missing"),
    "no output projection": (drop("lm_head.weight"), "lm_head.weight", "set tie_word_embeddings"),
    "extra": (put("model.layers.0.mlp.gate.weight", lambda _: np.ones(3, np.float32)), "mlp.gate", "belongs to none"),
    "a layer too many": (put(UP.replace("2", "3"), lambda _: np.ones(3, np.float32)), "layers.3", "none of the 3"),
    "a bias": (put("model.layers.0.self_attn.q_proj.bias", lambda _: np.ones(3, np.float32)), "bias", "is a bias"),
    "transposed": (put(UP, lambda array: np.ascontiguousarray(array.T)), UP, "has shape [24, 40]"),
    "flat": (put(UP, lambda array: array.reshape(-1)), UP, "has shape [960]"),
    "integers": (put(UP, lambda array: array.view(np.uint8).astype(np.int32)[:, :24]), UP, "has dtype I32"),
    "double": (put(UP, lambda array: array.astype(np.float64)), UP, "has dtype F64"),
    "8 bits": (put(UP, lambda array: array.astype(ml_dtypes.float8_e4m3fn)), UP, "has dtype F8"),
    "NaN": (spoil(UP, np.nan), UP, "holds NaN or infinity"),
    "infinity": (spoil(UP, -np.inf), UP, "holds NaN or infinity"),
    "NaN in the last value": (spoil(UP, np.nan, (-1, -1)), UP, "holds NaN or infinity"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_TENSORS)
@pytest.mark.parametrize("dtype", ["BF16", "F32", "F16"])
def test_a_bad_tensor_is_one_line_naming_it_and_its_file(case, dtype, tmp_path):
    change, name, words = BAD_TENSORS[case]
    check_refused(MODEL, (dtype,), change, name, words, tmp_path / "in", abstract_parameters(MODEL))


def check_refused(model, dtypes, change, name, words, folder, abstract):
    """Passes if such a model whose tensors are changed so is refused in one line."""
    values = tensors(model, dtypes)
    change(values)
    write_model(folder, old_config(model), values, 2)
    with pytest.raises(UserError) as caught:
        import_parameters(folder, abstract, progress=False)
    message = str(caught.value)
    assert name in message and words in message and str(folder) in message and "\n" not in message
    if words not in ("is missing", "set tie_word_embeddings"):
        assert ".safetensors" in message


@pytest.mark.parametrize("family", MODELS)
def test_bad_tensors_of_every_family(family, tmp_path):
    """Each tensor of the last layer missing, flattened and with NaN; a layer, an expert and a bias too many."""
    model, abstract = MODELS[family], abstract_parameters(MODELS[family])
    last = [name for name in shapes(model) if name.startswith(f"model.layers.{model.num_layers - 1}.")]
    kinds = [name for name in last if ".experts." not in name or ".experts.3." in name]
    assert len(kinds) >= 9
    added = [(kinds[0].replace("layers.2", "layers.3"), "belongs to none of the 3 layers")]
    if model.experts is not None:
        expert = next(name for name in kinds if ".experts." in name)
        added.append((expert.replace("experts.3", "experts.6"), "belongs to none of the 3 layers"))
    biases = ("self_attn.o_proj", "mlp.up_proj") if family == "qwen2" else ("self_attn.q_proj", "mlp.up_proj")
    added += [(f"model.layers.0.{name}.bias", "is a bias, which a model of type") for name in biases]
    cases = [(put(name, lambda _: np.ones(3, np.float32)), name, words) for name, words in added]
    for name in kinds:
        cases.append((drop(name), name, "is missing"))
        cases.append((put(name, lambda array: array.reshape(1, -1)), name, "has shape [1, "))
        cases.append((spoil(name, np.nan, ...), name, "holds NaN or infinity"))
    for number, (change, name, words) in enumerate(cases):
        dtypes = (("BF16",), ("F16", "F32"))[number % 2]
        check_refused(model, dtypes, change, name, words, tmp_path / str(number), abstract)


def test_a_number_too_large_for_the_dtype_asked_for(tmp_path):
    values = tensors(MODEL, ("F32",))
    values[UP][0, 0] = np.float32(3.4e38)
    folder = write_model(tmp_path / "in", old_config(MODEL), values)
    with pytest.raises(UserError, match="too large for bfloat16"):
        import_all(folder, "bfloat16")
    params = import_all(folder)
    with pytest.raises(UserError, match="too large for float16"):
        export(folder, tmp_path / "out", params, "float16")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.unfinished").exists()


def test_a_tied_models_own_projection_must_repeat_the_embedding(tmp_path):
    values = tensors(TIED)
    embedding = values["model.embed_tokens.weight"]
    values["lm_head.weight"] = embedding.copy()
    values["lm_head.weight"][-1, -1] *= -1
    folder = write_model(tmp_path / "in", old_config(TIED), values)
    with pytest.raises(UserError, match=r"lm_head\.weight in .* differs from model\.embed_tokens\.weight"):
        import_all(folder)
    values["lm_head.weight"] = embedding.astype(np.float32)
    with pytest.raises(UserError, match="differs"):
        import_all(write_model(tmp_path / "wide", old_config(TIED), values))


def test_another_models_arrays_are_refused(tmp_path):
    folder = write_model(tmp_path / "in", old_config(MODEL), tensors(MODEL))
    with pytest.raises(UserError, match=r"parameter embedder/embedding has shape \[29, 24\]"):
        import_parameters(folder, abstract_parameters(dataclasses.replace(MODEL, vocab_size=32)), progress=False)
    with pytest.raises(UserError, match="has parameter head/kernel as well"):
        import_parameters(folder, abstract_parameters(TIED), progress=False)


# ---- exports that do not succeed


def test_not_a_number_is_not_exported_and_nothing_stays(tmp_path):
    folder = write_model(tmp_path / "in", old_config(MODEL), tensors(MODEL), 2)
    params = jax.tree.map(np.array, import_all(folder))
    params["layers"]["mlp"]["up"]["kernel"][2, 5, 7] = np.nan
    with pytest.raises(UserError, match=f"{UP} holds NaN"):
        export(folder, tmp_path / "out", params)
    assert not list(tmp_path.glob("out")) and not list(tmp_path.glob("out.*"))


def test_a_folder_that_is_taken_is_not_touched(tmp_path):
    folder = write_model(tmp_path / "in", old_config(MODEL), tensors(MODEL))
    params = import_all(folder)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    with pytest.raises(UserError, match="there already"):
        export(folder, out, params)
    assert files_of(out) == {"mine": b"mine"}
    (out / "mine").unlink()
    export(folder, out, params)  # an empty one is welcome
    assert files_of(out) == files_of(folder)


def test_another_models_origin_is_refused(tmp_path):
    folder = write_model(tmp_path / "in", old_config(MODEL), tensors(MODEL))
    params = import_all(folder)
    origin = keep_origin(folder, tmp_path / "origin")
    other = dataclasses.replace(MODEL, num_layers=2)
    with pytest.raises(UserError, match=r"tensor model\.layers\.2\..* another one"):
        export_model(tmp_path / "out", other, reader(params), origin, progress=False)
    with pytest.raises(UserError, match="of its own"):
        export_model(tmp_path / "out", MODEL, reader(params), origin, files={"config.json": b""}, progress=False)


def test_a_damaged_origin_is_one_line(tmp_path):
    folder = write_model(tmp_path / "in", old_config(MODEL), tensors(MODEL))
    origin = keep_origin(folder, tmp_path / "origin").folder / "origin.json"
    good = json.loads(origin.read_text())
    hostile = {"file": "../../elsewhere", "header": good["shards"][0]["header"]}
    for text in ("", "[]", '{"format": 2}', '{"format": 1}', json.dumps(good | {"shards": [hostile]}),
                 json.dumps(good | {"shards": [{"file": "a", "header": "{"}]})):  # fmt: skip
        origin.write_text(text)
        with pytest.raises(UserError, match=r"origin\.json") as caught:
            load_origin(origin.parent)
        assert "\n" not in str(caught.value)


def test_a_killed_export_leaves_nothing_under_its_name_and_can_be_repeated(tmp_path):
    folder = write_model(tmp_path / "in", old_config(MODEL), tensors(MODEL), 3)
    keep_origin(folder, tmp_path / "origin")
    process = run_process("export_process", tmp_path, "stop at 20")
    assert process.stdout is not None and process.stdout.readline() == "reading the 20th\n"
    unfinished = tmp_path / "out.unfinished"
    assert unfinished.exists() and not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="another process is writing"):
        export(folder, tmp_path / "out", {})
    process.kill()
    process.communicate()
    assert unfinished.exists() and not (tmp_path / "out").exists()
    export(folder, tmp_path / "out", import_all(folder))
    assert files_of(tmp_path / "out") == files_of(folder) and not unfinished.exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    folder = write_model(tmp_path / "in", old_config(MODEL), tensors(MODEL), 3)
    keep_origin(folder, tmp_path / "origin")
    process = run_process("export_process", tmp_path, "limit 15000")
    output, errors = process.communicate(timeout=60)
    assert errors == "" and output.startswith("UserError: cannot write ") and "model-0000" in output
    assert "File too large" in output and output.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "origin"]
