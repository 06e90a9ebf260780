"""What a run directory refuses, what it lets change, and what it tells."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import hephaestus_jax.run_directory as run_directory
from hephaestus_jax.config import (
    CheckpointConfig,
    EvaluationConfig,
    ExpertsConfig,
    GuardConfig,
    LoggingConfig,
    LoraConfig,
    MeshConfig,
    ModelConfig,
    RopeScaling,
    ScheduleConfig,
    TrainConfig,
)
from hephaestus_jax.data.identity import VocabularyIdentity
from hephaestus_jax.data.mixture import Mixture
from hephaestus_jax.data.mixture_spec import MixtureSpec, Stage, TaskCache
from hephaestus_jax.errors import UserError
from hephaestus_jax.run_directory import RunDirectory, check_identity, free_settings, identity_digests, identity_of

MODEL = ModelConfig("tiny", 300, 32, 64, 2, 4, 2, 8)
CONFIG = TrainConfig(
    "run", "mixture.json", MODEL, train_steps=100, batch_size=8, schedule=ScheduleConfig(warmup_steps=5)
)
MESH = SimpleNamespace(devices=np.array(jax.devices()[:1]), shape={"data": 1, "fsdp": 1, "tensor": 1})


def make_mixture(**changes) -> Mixture:
    spec = MixtureSpec(
        name="small",
        seed=3,
        denominator=4,
        sequence_length=16,
        vocabulary=VocabularyIdentity("bytes", "abc", 300),
        tasks={"code": TaskCache("caches/code", 50, "c0de"), "docs": TaskCache("caches/docs", 20, "d0c5")},
        stages=(Stage(0, {"code": 3, "docs": 1}),),
    )
    return Mixture(dataclasses.replace(spec, **changes))


MIXTURE = make_mixture()
IDENTITY = identity_of(CONFIG, MIXTURE)


def changed(config, field: str, value):
    part, _, name = field.partition(".")
    if name:
        value = dataclasses.replace(getattr(config, part), **{name: value})
    return dataclasses.replace(config, **{part: value})


# ---- identity

REFUSED = {
    "model.name": "other",
    "model.vocab_size": 304,
    "model.embed_dim": 64,
    "model.mlp_dim": 128,
    "model.num_layers": 3,
    "model.num_heads": 8,
    "model.num_kv_heads": 4,
    "model.head_dim": 16,
    "model.rope_theta": 10_000.0,
    "model.rope_scaling": RopeScaling(8.0),
    "model.norm_epsilon": 1e-6,
    "model.tied_embeddings": True,
    "model.max_positions": 4096,
    "model.experts": ExpertsConfig(4, 2, 16),
    "model.qkv_bias": True,
    "model.query_key_norm": "head",
    "model.norm_placement": "both",
    "model.norm_plus_one": True,
    "model.activation": "gelu_tanh",
    "model.scaled_embedding": True,
    "model.attention_scale_dim": 12.0,
    "model.attention_softcap": 50.0,
    "model.logit_softcap": 30.0,
    "model.layer_pattern": ("full", "unrotated"),
    "seed": 1,
    "batch_size": 16,
    "init_from": "/elsewhere",
    "compute.dtype": "float32",
    "compute.param_dtype": "bfloat16",
    "loss.z_loss": 1e-4,
    "optimizer.kind": "muon",
    "optimizer.b1": 0.8,
    "optimizer.b2": 0.99,
    "optimizer.epsilon": 1e-9,
    "optimizer.weight_decay": 0.0,
    "optimizer.clip_norm": 0.0,
    "optimizer.moment_dtype": "bfloat16",
    "schedule.kind": "constant",
    "schedule.peak": 1e-3,
    "schedule.warmup_steps": 6,
    "schedule.initial_fraction": 0.1,
    "schedule.final_fraction": 0.0,
    "schedule.decay_shape": "sqrt",
}
OF_THE_FIRST_VERSION = {
    f"model.{name}"
    for name in (
        "name", "vocab_size", "embed_dim", "mlp_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim",
        "rope_theta", "rope_scaling", "norm_epsilon", "tied_embeddings", "max_positions", "experts",
    )
}  # fmt: skip
FREE = {
    "train_steps": 200,
    "microbatches": 2,
    "stop_after": 7,
    "schedule.total_steps": 150,
    "compute.attention": "splash",
    "compute.experts": "tiled",
    "compute.remat": "full",
    "compute.loss_chunk": 64,
    "mesh": MeshConfig(2, 4),
    "guard": GuardConfig("stop", 3, 10.0, 5),
    "evaluation": EvaluationConfig(10, 4, 7, ("a=b",), "v"),
    "checkpoints": CheckpointConfig(7, 1.0, 5, 100),
    "logging": LoggingConfig(5, False, "1-2", 9.0, ""),
    "run_dir": "moved",
    "mixture": "moved/mixture.json",
}
# another field must change with it
NOT_ALONE = {
    "schedule.decay_steps", "init_optimizer", "lora", "loss.load_balancing", "loss.router_z", "model.sliding_window",
    "model.sliding_rope_theta",
}  # fmt: skip


def test_every_setting_is_known_to_be_refused_or_free():
    for field in dataclasses.fields(TrainConfig):
        value = getattr(CONFIG, field.name)
        parts = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
        names = {f"{field.name}.{part.name}" for part in parts} or {field.name}
        if field.name not in FREE:
            assert names <= set(REFUSED) | set(FREE) | NOT_ALONE, f"say whether {names} may change"


@pytest.mark.parametrize("field", REFUSED)
def test_what_the_weights_depend_on_is_refused(field):
    with pytest.raises(UserError) as caught:
        check_identity(IDENTITY, identity_of(changed(CONFIG, field, REFUSED[field]), MIXTURE))
    message = str(caught.value)
    assert message.startswith(f"{field} changed from ") and "TrainConfig.init_from" in message and "\n" not in message


def test_settings_that_change_together_are_refused():
    wsd = changed(CONFIG, "schedule", ScheduleConfig("wsd", warmup_steps=5, decay_steps=10))
    longer = changed(CONFIG, "schedule", ScheduleConfig("wsd", warmup_steps=5, decay_steps=20))
    with pytest.raises(UserError, match=r"schedule\.decay_steps changed from 10 to 20"):
        check_identity(identity_of(wsd, MIXTURE), identity_of(longer, MIXTURE))
    routed = changed(CONFIG, "model.experts", ExpertsConfig(4, 2, 16))
    windowed = dataclasses.replace(MODEL, layer_pattern=("sliding", "full"), sliding_window=8)
    windowed = dataclasses.replace(CONFIG, model=windowed)
    for name, value in (("model.sliding_window", 4), ("model.sliding_rope_theta", 1e4)):
        with pytest.raises(UserError, match=f"{name} changed from .* to {value}"):
            check_identity(identity_of(windowed, MIXTURE), identity_of(changed(windowed, name, value), MIXTURE))
    for name in ("loss.load_balancing", "loss.router_z"):
        with pytest.raises(UserError, match=f"{name} changed from 0.0 to 0.01"):
            check_identity(identity_of(routed, MIXTURE), identity_of(changed(routed, name, 0.01), MIXTURE))
    base = dataclasses.replace(CONFIG, init_from="~/base")
    with pytest.raises(UserError, match="init_optimizer changed from False to True"):
        check_identity(identity_of(base, MIXTURE), identity_of(dataclasses.replace(base, init_optimizer=True), MIXTURE))
    adapted = dataclasses.replace(base, lora=LoraConfig(4, 8.0))
    for one, other, words in ((base, adapted, "from None to 4"), (adapted, base, "from 4 to None")):
        with pytest.raises(UserError, match=f"lora.rank changed {words}"):
            check_identity(identity_of(one, MIXTURE), identity_of(other, MIXTURE))
    for name, value in (("rank", 8), ("alpha", 4.0), ("targets", ("query",)), ("rank_stabilised", True)):
        other = identity_of(changed(adapted, f"lora.{name}", value), MIXTURE)
        with pytest.raises(UserError, match=f"lora.{name} changed from"):
            check_identity(identity_of(adapted, MIXTURE), other)
        assert identity_digests(other)["model"] != identity_digests(identity_of(adapted, MIXTURE))["model"]
    assert identity_digests(identity_of(base, MIXTURE)) == identity_digests(IDENTITY), "as before there were adapters"
    home = dataclasses.replace(CONFIG, init_from=str(Path.home() / "base"))
    check_identity(identity_of(base, MIXTURE), identity_of(home, MIXTURE))  # the same place


@pytest.mark.parametrize("field", FREE)
def test_how_and_how_long_is_free(field):
    other = changed(CONFIG, field, FREE[field])
    assert other != CONFIG
    check_identity(IDENTITY, identity_of(other, MIXTURE), consumed_row=50)
    known = any(name.partition(".")[0] == field.partition(".")[0] for name in free_settings(other))
    assert known or field in ("run_dir", "mixture")


@pytest.mark.parametrize(
    ("changes", "consumed", "message"),
    [
        ({"vocabulary": VocabularyIdentity("other", "abd", 300)}, 0, "vocabulary changed from 'abc' to 'abd'"),
        ({"sequence_length": 32}, 0, "sequence_length changed from 16 to 32"),
        ({"seed": 4}, 1, "seed changed from 3 to 4"),
        ({"stages": (Stage(0, {"code": 2, "docs": 2}),)}, 1, "rates of stage 0 changed"),
        ({"stages": (Stage(0, {"code": 3, "docs": 1}), Stage(40, {"code": 4}))}, 41, "number of stages before row 41"),
        (
            {"tasks": {"code": TaskCache("c", 50, "0ther"), "docs": TaskCache("d", 20, "d0c5")}},
            1,
            "digest of task 'code'",
        ),
    ],
)
def test_consumed_rows_are_refused(changes, consumed, message):
    with pytest.raises(UserError, match=message):
        check_identity(IDENTITY, identity_of(CONFIG, make_mixture(**changes)), consumed)


@pytest.mark.parametrize(
    ("changes", "consumed"),
    [
        ({"stages": (Stage(0, {"code": 3, "docs": 1}), Stage(40, {"code": 4}))}, 40),
        ({"stages": (Stage(0, {"code": 2, "docs": 2}),)}, 0),
        ({"name": "small+more"}, 100),
        ({"tasks": {"code": TaskCache("moved", 50, "c0de"), "docs": TaskCache("gs://b/d", 20, "d0c5")}}, 100),
        ({"vocabulary": VocabularyIdentity("renamed", "abc", 300)}, 100),
    ],
)
def test_what_no_consumed_row_depends_on_is_free(changes, consumed):
    check_identity(IDENTITY, identity_of(CONFIG, make_mixture(**changes)), consumed)


def test_settings_that_are_new_in_a_later_version_stand_for_their_default():
    older = {name: value for name, value in IDENTITY.items() if name not in ("model.tied_embeddings", "init_from")}
    check_identity(older, IDENTITY)
    assert identity_digests(older)["model"] == identity_digests(IDENTITY)["model"]
    tied = identity_of(changed(CONFIG, "model.tied_embeddings", True), MIXTURE)
    with pytest.raises(UserError, match=r"model\.tied_embeddings changed from False to True"):
        check_identity(older, tied)
    with pytest.raises(UserError, match="model.experts changed from 8 to None"):
        check_identity({**IDENTITY, "model.experts": 8}, IDENTITY)


def test_a_run_from_before_the_architecture_was_told_resumes():
    """Its run.json has none of the later fields of the model, and its checkpoints the digest of the others."""
    later = [field for field in REFUSED if field.startswith("model.") and field not in OF_THE_FIRST_VERSION]
    later += ["model.sliding_window", "model.sliding_rope_theta"]
    assert len(later) == 12 and set(later) <= set(IDENTITY)
    older = {name: value for name, value in IDENTITY.items() if name not in later}
    check_identity(older, IDENTITY)
    assert identity_digests(older) == identity_digests(IDENTITY)
    assert identity_digests(IDENTITY)["model"] == "b380b9614bd627452c2308c0275d30f0"
    fields = {name.removeprefix("model."): value for name, value in older.items() if name.startswith("model.")}
    assert ModelConfig.from_json(fields) == MODEL
    with pytest.raises(UserError, match=r"model.layer_pattern changed from \['full'\] to \['full', 'unrotated'\]"):
        check_identity(older, identity_of(changed(CONFIG, "model.layer_pattern", ("full", "unrotated")), MIXTURE))


def test_settings_that_are_new_are_no_change(tmp_path, capsys):
    begin(tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    del record["identity"]["model.layer_pattern"], record["identity"]["model.qkv_bias"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    begin(tmp_path, step=1)
    assert capsys.readouterr().out == ""


def test_digests_tell_models_vocabularies_and_mixtures_apart():
    digests = identity_digests(IDENTITY)
    assert digests == identity_digests(identity_of(dataclasses.replace(CONFIG, train_steps=200, seed=9), MIXTURE))
    other = identity_digests(identity_of(changed(CONFIG, "model.head_dim", 16), make_mixture(seed=4)))
    assert other["model"] != digests["model"] and other["mixture"] != digests["mixture"]
    assert other["vocabulary"] == digests["vocabulary"] == "abc"


def test_a_vocabulary_larger_than_the_model_is_refused():
    with pytest.raises(UserError, match=r"301 ids, ModelConfig.vocab_size is 300; set it to 301 or more"):
        identity_of(CONFIG, make_mixture(vocabulary=VocabularyIdentity("big", "abc", 301)))


# ---- the directory


def begin(folder: Path, config=CONFIG, mixture=MIXTURE, step: int = 0, saved: bool = True) -> None:
    with RunDirectory(folder) as run:
        identity = identity_of(config, mixture)
        if run.identity is not None:
            check_identity(run.identity, identity, step * config.batch_size)
        run.begin(identity, config, MESH, step, f"TrainConfig.train_steps = {config.train_steps}\n")
        if saved:
            (run.checkpoints / str(step)).mkdir(parents=True, exist_ok=True)


def test_run_json_tells_what_ran_where(tmp_path):
    folder = tmp_path / "a" / "run"
    assert RunDirectory(folder).identity is None and not folder.exists()
    begin(folder)
    begin(folder, dataclasses.replace(CONFIG, train_steps=200), step=10)
    record = json.loads((folder / "run.json").read_text())
    assert record["identity"] == IDENTITY == RunDirectory(folder).identity
    assert record["digests"]["vocabulary"] == "abc"
    assert record["versions"]["jax"] == jax.__version__ and record["versions"]["python"] == sys.version.split()[0]
    assert [start["step"] for start in record["starts"]] == [0, 10]
    start = record["starts"][1]
    assert start["devices"] == 1 and start["processes"] == 1 and start["mesh"] == MESH.shape
    assert start["device_kind"] == jax.devices()[0].device_kind and start["time"].endswith("+00:00")
    assert (folder / "config.gin").read_text() == "TrainConfig.train_steps = 200\n"
    assert {path.name for path in folder.iterdir()} == {"run.json", "config.gin", "checkpoints", "lock"}


def test_what_changed_is_printed(tmp_path, capsys):
    begin(tmp_path)
    begin(tmp_path, step=1)
    assert capsys.readouterr().out == ""
    stages = (Stage(0, {"code": 3, "docs": 1}), Stage(400, {"code": 4}))
    config = changed(dataclasses.replace(CONFIG, train_steps=200), "mesh.fsdp", 4)
    begin(tmp_path, config, make_mixture(stages=stages), step=2)
    out = capsys.readouterr().out
    assert "train_steps 100 → 200" in out
    assert "schedule.end 100 → 200 (the learning rates of the steps to come move with it)" in out
    begin(tmp_path, changed(config, "schedule.total_steps", 200), make_mixture(stages=stages), step=3)
    assert "schedule.end" not in capsys.readouterr().out
    assert "mesh.fsdp -1 → 4" in out and "mixture '" in out and out.count("\n") == 1


def test_a_run_that_saved_nothing_may_still_change(tmp_path, capsys):
    begin(tmp_path, saved=False)
    begin(tmp_path, dataclasses.replace(CONFIG, batch_size=4))
    assert "batch_size 8 → 4" in capsys.readouterr().out
    with pytest.raises(UserError, match="batch_size changed from 4 to 8"):
        begin(tmp_path, step=1)


def test_only_one_process_writes(tmp_path):
    with RunDirectory(tmp_path, writes=True) as first, RunDirectory(tmp_path, writes=False) as second:
        second.begin(IDENTITY, CONFIG, MESH, 0, "")
        assert not (tmp_path / "run.json").exists()
        first.begin(IDENTITY, CONFIG, MESH, 0, "")
        assert second.record() == first.record() is not None


HOLD = """
import sys, time
from hephaestus_jax.run_directory import RunDirectory
with RunDirectory(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_runs_in_one_directory_are_refused_and_a_killed_one_lets_go(tmp_path):
    where = {**os.environ, "PYTHONPATH": str(Path(run_directory.__file__).parents[1])}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    holder = subprocess.Popen(command, env=where, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {holder.pid} on .* is running in .*; wait for it"):
            RunDirectory(tmp_path).__enter__()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with RunDirectory(tmp_path), pytest.raises(UserError, match="is running in"):
        RunDirectory(tmp_path).__enter__()
    with RunDirectory(tmp_path):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "run.json is damaged"), ('{"format": 99}', "has format 99"), ("[]", "None"), ('{"format": 1}', "format 1")],
)
def test_a_damaged_record_is_one_line(tmp_path, text, message):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=message):
        RunDirectory(tmp_path).record()


def test_places_that_cannot_be_used(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="is a URL; give a local folder"):
        RunDirectory("gs://bucket/run")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use run_dir"):
        RunDirectory(tmp_path / "file" / "run").__enter__()

    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(run_directory.fcntl, "flock", no_locks)
    with pytest.raises(UserError, match="cannot lock run_dir .*: No locks available"):
        RunDirectory(tmp_path).__enter__()


def test_the_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    package = tmp_path / "hephaestus_jax"
    package.mkdir()
    monkeypatch.setattr(run_directory, "__file__", str(package / "run_directory.py"))
    assert run_directory._commit() == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    (package / "x").write_text("1")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *arguments], check=True)
    assert len(run_directory._commit()) == 40
    (package / "x").write_text("2")
    assert run_directory._commit().endswith("+changes")
