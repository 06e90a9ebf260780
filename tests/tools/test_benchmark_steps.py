import json
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hephaestus_jax.config import ModelConfig
from hephaestus_jax.errors import UserError
from tools.benchmark import checkpoint, scaling, train
from tools.benchmark.__main__ import main
from tools.benchmark.steps.spec import StepSpec, batches
from tools.benchmark.steps.workers import Turn

SIZES = "vocab_size=96,embed_dim=16,mlp_dim=24,num_layers=2,num_heads=4,num_kv_heads=2,head_dim=4,tied_embeddings=1"
MODEL = ModelConfig("test", 96, 16, 24, 2, num_heads=4, num_kv_heads=2, head_dim=4, tied_embeddings=True)


def spec(**changes: Any) -> StepSpec:
    given: dict[str, Any] = {
        "model": MODEL, "rows": 2, "length": 24, "segments": 3, "dtype": "float32", "param_dtype": "float32",
        "moment_dtype": "float32", "threads": 1, "platform": "cpu", "seed": 0, "attention": "chunked",
        "loss_chunk": 8, "remat": "none",
    }  # fmt: skip
    return StepSpec(**{**given, **changes})


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_rows_are_packed_texts() -> None:
    for rows in batches(spec(rows=5, segments=4)):
        assert rows.tokens.min() >= 0 and rows.tokens.max() < 96
        for row in range(5):
            segments, places = rows.segment_ids[row], rows.positions[row]
            assert sorted(set(segments)) == [1, 2, 3, 4] and all(np.diff(segments) >= 0)
            for segment in range(1, 5):
                own = places[segments == segment]
                assert list(own) == list(range(len(own)))
            assert list(rows.loss_weights[row] == 0) == list(places == 0)
    assert not np.array_equal(batches(spec())[0].tokens, batches(spec())[1].tokens)


def test_both_sides_compute_the_same() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tools.benchmark.steps.ours import Ours
    from tools.benchmark.steps.theirs import Theirs, torch

    threads = torch.get_num_threads()
    try:
        theirs, ours = Theirs(spec()), Ours(spec())
        values = {"ours": ours.advance(3), "torch": theirs.advance(3)}
        found = train._agreement(spec(), values)
        assert found["largest_relative_difference"]["loss"] < 1e-5  # after updates of all parameters, too
        assert len({loss for loss, _ in values["ours"]}) == 3
        assert ours.facts()["compile_s"] > 0 and theirs.facts()["first_step_s"] > 0
        assert min(ours.product_rate(8, 1), theirs.product_rate(8, 1)) > 0
        # The check finds a side that lets texts of a row see each other.
        leaky = Theirs(spec())
        tokens, segments, positions, targets = next(leaky.batches)
        leaky.batches = iter([(tokens, torch.ones_like(segments), positions, targets)])
        with pytest.raises(UserError, match="loss differs by .* so nothing was timed"):
            train._agreement(spec(), {"ours": values["ours"][:1], "torch": leaky.advance(1)})
    finally:
        torch.set_num_threads(threads)


def test_the_line_of_train(capsys: pytest.CaptureFixture) -> None:
    options = ["--rows", "2", "--length", "16", "--repeats", "2", "--steps", "1", "--loss_chunk", "8"]
    main(["train", "--sizes", SIZES, *options])
    result = json.loads(capsys.readouterr().out)
    assert result["parameters"] == MODEL.num_parameters and result["threads"] >= 1
    assert result["ours"]["tokens_per_s"] > 0 and "ratio" not in result
    assert result["sizes"]["tied_embeddings"] is True


def test_ratio_is_above_1_where_ours_is_quicker() -> None:
    def turns(*seconds: float) -> list[Turn]:
        return [Turn([], value, 2 * value) for value in seconds]

    found = train._ratios(turns(1.0, 2.0, 1.0), turns(2.0, 5.0, 1.5))
    assert found == {"ratio": 2.0, "ratio_of_pairs": [1.5, 2.0, 2.5], "cpu_seconds_ratio": 2.0}


@pytest.mark.parametrize("theirs", [(5.01, 1.0), (math.nan, 1.0), (5.0, 1.2), (5.0, math.inf)])
def test_disagreement_is_an_error(theirs: tuple[float, float]) -> None:
    train._agreement(spec(), {"ours": [(5.0, 1.0)], "torch": [(5.0001, 1.0001)]})
    with pytest.raises(UserError, match="do not compute the same, so nothing was timed"):
        train._agreement(spec(), {"ours": [(5.0, 1.0)], "torch": [theirs]})


def test_the_line_of_checkpoint(tmp_path, capsys: pytest.CaptureFixture) -> None:
    options = ["--rows", "1", "--length", "16", "--rounds", "1", "--steps", "1", "--loss_chunk", "8"]
    main(["checkpoint", "--sizes", SIZES, "--folder", str(tmp_path), *options])
    result = json.loads(capsys.readouterr().out)
    arrays = 3 * 4 * MODEL.num_parameters  # parameters and two moments in float32
    assert arrays < result["checkpoint_mb"] * 1e6 < arrays + 2e5
    for name in ("save_mb_per_s", "copy_mb_per_s", "restore_mb_per_s", "read_mb_per_s", "pause_s", "step_s"):
        assert result[name] > 0
    assert list(tmp_path.iterdir()) == []


def test_copies_are_whole(tmp_path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "x").write_bytes(b"some bytes")
    (tmp_path / "a" / "empty").write_bytes(b"")
    checkpoint._copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "deep" / "x").read_bytes() == b"some bytes"
    assert (tmp_path / "b" / "empty").read_bytes() == b""
    checkpoint._read(tmp_path / "b")
    checkpoint._forget(tmp_path / "b")


def test_scaling_compares_equal_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    measured: list[StepSpec] = []

    def measure(spec: StepSpec, steps: int) -> dict:
        measured.append(spec)
        size = spec.length * spec.model.num_parameters / spec.devices
        return {
            "parameters": spec.model.num_parameters, "length": spec.length, "devices": spec.devices,
            **{name: size**1.5 for name in scaling.GROWING}, "compile_s": 7.0,
        }  # fmt: skip

    monkeypatch.setattr(scaling, "_measured", measure)
    main(["scaling", "--lengths", "256", "512", "2048", "--tokens", "4096", "--devices", "1", "2", "4"])
    result = json.loads(capsys.readouterr().out)
    assert {spec.tokens for spec in measured} == {4096}
    assert [(spec.length, spec.rows) for spec in measured[4:7]] == [(256, 16), (512, 8), (2048, 2)]
    assert [spec.devices for spec in measured[7:]] == [1, 2, 4]
    assert result["exponents_by_length"]["step_s"] == 1.5 and result["exponents_by_length"]["compile_s"] == 0
    assert result["exponents_by_devices"]["resident_mib"] == -1.5
    with pytest.raises(UserError, match="--tokens 100 is no multiple of a row's length 512"):
        main(["scaling", "--tokens", "100"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--repeats", "0"], "--repeats and --steps must be at least 1"),
        (["--rows", "0"], "--rows must be at least 1"),
        (["--length", "6"], "4 segments do not fit into rows of 6 tokens"),
        (["--threads", "100000"], "--threads is 100000; this process may use"),
        (["--gin_file", "gin/models/absent.gin"], "exists neither here nor in the project"),
        (["--sizes", "vocab_size=9,width=3"], "'width=3'; write NAME=NUMBER with a name of: vocab_size, embed_dim"),
        (["--sizes", "vocab_size=many"], "'many' is not such a number"),
        (["--sizes", "vocab_size=9"], "--sizes: missing 6 required positional arguments: 'embed_dim'"),
    ],
)
def test_bad_options(options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(["train", *options])
