"""The command that converts checkpoints: in and out bit for bit, differences found, nothing half-written."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

sys.path += [str(Path(__file__).parents[1] / "hf"), str(Path(__file__).parents[1] / "data")]
import small_models as llamas
import tokenizer_files as files

from hephaestus_jax.checkpoints import Checkpointer
from hephaestus_jax.checkpoints.reading import ArrayReader
from hephaestus_jax.config import CheckpointConfig, ModelConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf import compare, exporting
from hephaestus_jax.hf.importing import import_parameters
from hephaestus_jax.model.decoder import abstract_parameters, init_parameters
from hephaestus_jax.starting_point import open_starting_point
from tools.benchmark.__main__ import main as benchmark
from tools.convert_checkpoint import main

MIXED = ("BF16", "F32", "F16")


def architecture(family: str = "llama") -> ModelConfig:
    """A small model of a family, with a row of its embedding for every id of the vocabulary."""
    return dataclasses.replace(llamas.MODELS[family], vocab_size=files.vocabulary("trained").size)


@pytest.fixture
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A small model in three files, with a licence and a SentencePiece model, but no tokenizer.json."""
    made = architecture(getattr(request, "param", "llama"))
    folder = llamas.write_model(tmp_path / "model", llamas.old_config(made), llamas.tensors(made, MIXED), shards=3)
    (folder / "LICENSE").write_text("free")
    (folder / "tokenizer.model").write_bytes(Path(files.vocabulary("trained").path).read_bytes())
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": true}'
    )
    return folder


def convert(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


@pytest.mark.parametrize("model, count", [("llama", 30), ("qwen3_moe", 84)], indirect=["model"])
def test_there_and_back(model: Path, count: int, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    convert("import", model, tmp_path / "imported")
    assert "begin a run with --gin.INIT_FROM=" in capsys.readouterr().out
    start = open_starting_point(tmp_path / "imported")
    assert (start.kind, start.model) == ("imported", open_starting_point(model).model)
    abstract = abstract_parameters(start.model)
    restored = start.restore({"params": abstract}).state["params"]
    expected = import_parameters(model, abstract, progress=False)
    assert all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True)
    )

    convert("export", tmp_path / "imported", tmp_path / "exported")
    said = capsys.readouterr()
    assert "tokenizer.json was made from tokenizer.model" in said.out and " MB/s)" in said.out
    made = llamas.files_of(tmp_path / "exported")
    assert json.loads(made.pop("tokenizer.json"))["model"]["type"] == "BPE"
    assert made == llamas.files_of(model)

    for a, b in ((model, "exported"), ("imported", "exported"), ("exported", "imported"), (model, "imported")):
        convert("verify", tmp_path / a, tmp_path / b)
        assert f"are the same ({count} tensors bit for bit," in capsys.readouterr().out


def test_differences_are_listed(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    convert("import", model, tmp_path / "imported", "--dtype", "as_stored")
    values = llamas.tensors(architecture(), MIXED)
    values["model.norm.weight"][3] += 1
    config = llamas.old_config(architecture()) | {"a_new_field": 2}
    other = llamas.write_model(tmp_path / "other", config, values)
    (other / "LICENSE").write_text("costly")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        convert("verify", tmp_path / "imported", other)
    assert ended.value.code == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert last.endswith(f"{other} differ in {len(lines)} places")
    text = "\n".join(lines)
    assert "config.json: a_new_field is" in text and "file LICENSE: differs" in text
    assert "file tokenizer.model: only in" in text
    assert "tensor model.norm.weight: 1 of 24 values differ, the first at [3]" in text
    with pytest.raises(UserError, match="give another one, or --transformers"):
        convert("verify", other)


@pytest.mark.parametrize("dtype", ["as_stored", "bfloat16"])
def test_dtypes_of_imports(dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    values = llamas.tensors(llamas.MODEL, ("BF16", "F32"))
    values = {name: np.clip(array, array.dtype.type(-1), array.dtype.type(1)) for name, array in values.items()}
    model = llamas.write_model(tmp_path / "model", llamas.old_config(llamas.MODEL), values)
    convert("import", model, tmp_path / "imported", "--dtype", dtype)
    said = capsys.readouterr().out
    assert ("tensors are rounded, the first of them" in said) == (dtype == "bfloat16")
    convert("export", tmp_path / "imported", tmp_path / "exported")
    same = llamas.files_of(tmp_path / "exported").items() >= llamas.files_of(model).items()
    assert same == (dtype == "as_stored")
    convert("export", tmp_path / "imported", tmp_path / "half", "--dtype", "bfloat16")
    assert {t.dtype for t in _tensors(tmp_path / "half")} == {"BF16"}
    assert json.loads((tmp_path / "half/config.json").read_text())["torch_dtype"] == "bfloat16"


def _tensors(folder: Path) -> list[Any]:
    from hephaestus_jax.hf.safetensors_files import open_tensors

    return list(open_tensors(folder).values())


@pytest.mark.parametrize("difference, largest, same", [(9e-5, 0.5, True), (2e-4, 0.5, False), (9e-4, 10.0, True)])
def test_verdict_on_logits(
    difference: float, largest: float, same: bool, model: Path, monkeypatch: Any, capsys: pytest.CaptureFixture
) -> None:
    """The comparison itself is tested, and run against transformers, in tests/hf."""
    found = compare.LogitComparison(difference, largest, 100, 64)
    monkeypatch.setattr(compare, "compare_with_transformers", lambda path: found)
    if same:
        convert("verify", model, "--transformers")
    else:
        with pytest.raises(SystemExit) as ended:
            convert("verify", model, "--transformers")
        assert ended.value.code == 1
    assert f"transformers are {'the same' if same else 'NOT the same'}: 100 logits" in capsys.readouterr().out


# ---- a run that began from scratch


def scratch_run(folder: Path, model: ModelConfig, vocabulary: str, dtype: Any = "float32") -> Path:
    """What training leaves that an export looks at: identity and checkpoints."""
    identity = {f"model.{name}": value for name, value in dataclasses.asdict(model).items()}
    record = {"format": 1, "identity": {**identity, "vocabulary": vocabulary, "mixture": {}}}
    empty: dict[str, Any] = {"digests": {}, "config": {}, "versions": {}, "starts": []}
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(record | empty))
    checkpointer = Checkpointer(folder / "checkpoints", CheckpointConfig(keep=5))
    for step in (3, 7):
        params = init_parameters(model, jax.random.key(step), dtype)
        state = {"params": params, "opt_state": {"mu": params}}
        checkpointer.save(step, state, {"next_row": 0}, force=True)
    checkpointer.close()
    return folder


def test_run_from_scratch(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    transformers = pytest.importorskip("transformers")
    vocabulary = files.vocabulary("trained")
    model = dataclasses.replace(llamas.MODEL, name="mine", vocab_size=vocabulary.size, tied_embeddings=True)
    run = scratch_run(tmp_path / "run", model, vocabulary.digest)
    flags = ("--vocabulary", vocabulary.path, "--chat", "llama3")
    with pytest.raises(UserError, match="began from scratch, .* give the vocabulary of its mixture with --vocabulary"):
        convert("export", run, tmp_path / "out")
    with pytest.raises(UserError, match=r"lacks the control tokens <\|begin_of_text\|>"):
        convert("export", run, tmp_path / "out", *flags)
    flags = ("--vocabulary", vocabulary.path, "--chat", "none")
    for step, out in ((7, "newest"), (3, "older")):
        convert("export", run, tmp_path / out, *flags, *([] if step == 7 else ["--step", "3"]))
        convert("verify", run, tmp_path / out, "--step", str(step))
        assert "are the same" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        convert("verify", run, tmp_path / "older")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "newest")
    assert tokenizer("a  b\n")["input_ids"] == [vocabulary.bos_id, *vocabulary.encode("a  b\n")]
    assert json.loads((tmp_path / "newest/config.json").read_text())["bos_token_id"] == vocabulary.bos_id

    other = files.vocabulary("unigram")
    with pytest.raises(UserError, match=r"has digest \w+, the run was trained with a vocabulary of digest \w+; give"):
        convert("export", run, tmp_path / "out", "--vocabulary", other.path, "--chat", "none")
    with pytest.raises(UserError, match=r"no checkpoint of step 5 in .*; there are 3, 7"):
        convert("export", run, tmp_path / "out", *flags, "--step", "5")
    assert not (tmp_path / "out").exists()


def test_of_a_checkpoint_with_an_optimizer_only_parameters_are_read(tmp_path: Path, monkeypatch: Any) -> None:
    """No state is built, on any device: what is read are parameters, one tensor after the other."""
    vocabulary = files.vocabulary("trained")
    model = dataclasses.replace(architecture(), vocab_size=vocabulary.size)
    run = scratch_run(tmp_path / "run", model, vocabulary.digest)
    read: set[str] = set()
    bytes_of = ArrayReader._bytes

    def noted(self: ArrayReader, name: str, *args: Any) -> bytes:
        read.add(name)
        return bytes_of(self, name, *args)

    monkeypatch.setattr(ArrayReader, "_bytes", noted)
    convert("export", run, tmp_path / "out", "--vocabulary", vocabulary.path, "--chat", "none")
    assert len(read) == 12 and all(name.startswith("params/") for name in read)
    assert not list(tmp_path.glob("out.*"))


def test_an_interrupted_export_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    convert("import", model, tmp_path / "imported")
    write_shard = exporting.write_shard

    def interrupted(folder: Path, shard: Any, chunks_of: Any) -> str:
        if shard.file.startswith("model-00003"):
            raise KeyboardInterrupt
        return write_shard(folder, shard, chunks_of)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(exporting, "write_shard", interrupted)
        convert("export", tmp_path / "imported", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    convert("export", tmp_path / "imported", tmp_path / "out")
    assert "2 of 3 weight files were whole" in capsys.readouterr().out
    made = llamas.files_of(tmp_path / "out")
    del made["tokenizer.json"]
    assert made == llamas.files_of(model)


def test_bfloat16_run_stays_so(tmp_path: Path) -> None:
    vocabulary = files.vocabulary("trained")
    model = dataclasses.replace(llamas.MODEL, vocab_size=vocabulary.size)
    run = scratch_run(tmp_path / "run", model, vocabulary.digest, "bfloat16")
    convert("export", run, tmp_path / "out", "--vocabulary", vocabulary.path, "--chat", "none")
    assert {tensor.dtype for tensor in _tensors(tmp_path / "out")} == {"BF16"}


# ---- what goes wrong


def test_what_is_refused(model: Path, tmp_path: Path) -> None:
    convert("import", model, tmp_path / "imported")
    with pytest.raises(UserError, match="is a Hugging Face model already"):
        convert("export", model, tmp_path / "out")
    for flag in ("--vocabulary", "--chat"):
        with pytest.raises(UserError, match=f"has tokenizer files from .*; leave out {flag}"):
            convert("export", tmp_path / "imported", tmp_path / "out", flag, "llama3")
    for action, source in (("import", model), ("export", tmp_path / "imported")):
        with pytest.raises(UserError, match="is there already"):
            convert(action, source, model)
        with pytest.raises(UserError, match="nothing"):
            convert(action, tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    convert("export", tmp_path / "imported", tmp_path / "empty")
    assert (tmp_path / "empty/model.safetensors.index.json").exists()
    with pytest.raises(UserError, match="is no Hugging Face model; export it"):
        convert("verify", tmp_path / "imported", "--transformers")


def test_bad_model_leaves_nothing(model: Path, tmp_path: Path) -> None:
    file = model / "model-00002-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"model-00002-of-00003\.safetensors"):
        convert("import", model, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_interrupted_import(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Checkpointer, "save", interrupted)
        convert("import", model, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    convert("import", model, tmp_path / "out")
    assert open_starting_point(tmp_path / "out").kind == "imported"


def test_killed_and_on_a_full_disk(model: Path, tmp_path: Path) -> None:
    def process(how: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(Path(__file__).parent / "convert_process.py"), how]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        arguments = ["import", str(model), str(tmp_path / "out")]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=120)

    assert process("kill").returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists() and (tmp_path / "out.unfinished/checkpoints/0").exists()
    full = process("limit 9000")
    assert full.returncode == 2
    (line,) = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
    assert "File too large" in line and "Traceback" not in full.stderr
    assert not (tmp_path / "out").exists()
    convert("import", model, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


def test_the_benchmarks_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    benchmark(["convert", "--shape", "gin/models/tiny.gin", "--layers", "2", "--scratch", str(tmp_path)])
    result = json.loads(capsys.readouterr().out)
    assert result["exported_files_same"] and result["layers"] == 2 and result["tensor_MB"] > 1
    assert all(result[f"{step}_MB_per_s"] > 0 for step in ("read", "copy", "import", "save", "export"))
    assert not list(tmp_path.iterdir())
