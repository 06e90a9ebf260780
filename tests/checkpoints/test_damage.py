"""Damaged checkpoints are named, set aside and never used."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from states import abstract, make_state, same_bits

from hephaestus_jax.checkpoints import Checkpointer, restore_parts
from hephaestus_jax.config import CheckpointConfig
from hephaestus_jax.errors import UserError

# Orbax drops reads when another one fails; pytest puts hooks of its own in place of those that keep that silent
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]

ROOT = Path(__file__).parents[2]
CONFIG = CheckpointConfig(every_steps=1, keep=5)
KERNEL = "params/layers/mlp/up/kernel"
STATES = {step: make_state(seed=step, width=16) for step in (2, 4, 6)}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pristine")
    one = Checkpointer(directory, CONFIG)
    for step, state in STATES.items():
        one.save(step, state, {"next_row": 10 * step}, force=True)
    one.close()
    return directory


@pytest.fixture
def directory(pristine, tmp_path):
    return Path(shutil.copytree(pristine, tmp_path / "checkpoints"))


def restore(directory):
    one = Checkpointer(directory, CONFIG)
    try:
        return one.restore(abstract(STATES[2]))
    finally:
        one.close()


def locate(directory, content):
    """The file that holds those bytes, and where in it they begin."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and (place := path.read_bytes().find(content)) >= 0:
            return path, place
    raise AssertionError("not stored as it is")


def kernel_bytes(step, layer=0):
    return np.asarray(STATES[step].params["layers"]["mlp"]["up"]["kernel"])[layer].tobytes()


def overwrite(path, place, data):
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)


def flip_one_bit(directory):
    path, place = locate(directory, kernel_bytes(6, layer=3))
    place += 100
    overwrite(path, place, bytes([path.read_bytes()[place] ^ 1]))


def zero_a_block(directory):
    path, place = locate(directory, kernel_bytes(6))
    overwrite(path, place, bytes(4096))


def truncate(directory):
    path, place = locate(directory, kernel_bytes(6))
    os.truncate(path, place + 1000)


def lose_a_shard(directory):
    locate(directory, kernel_bytes(6))[0].unlink()


def swap_two_layers(directory):
    first, second = locate(directory, kernel_bytes(6, 1)), locate(directory, kernel_bytes(6, 2))
    overwrite(*first, kernel_bytes(6, 2))
    overwrite(*second, kernel_bytes(6, 1))


def edit_facts(directory):
    path = directory / "facts" / "metadata"
    path.write_text(path.read_text().replace("60", "61"))


def edit_digests(directory):
    path = directory / "digests" / "metadata"
    value = json.loads(path.read_text())
    value["arrays"]["step"]["slabs"] = ["0123456789abcdef"]
    path.write_text(json.dumps(value))


DAMAGE = {
    "flipped bit": (
        flip_one_bit, rf"array {KERNEL}: differs from what was saved at index 3 of its first axis \(1 of 4 parts\)"
    ),
    "zeroed block": (zero_a_block, rf"array {KERNEL}: differs from what was saved at index 0 of its first axis"),
    "swapped layers": (swap_two_layers, rf"array {KERNEL}: differs .* at index 1 of its first axis \(2 of 4 parts\)"),
    "truncated file": (truncate, r"array params/\S+: "),
    "missing shard": (lose_a_shard, r"array params/\S+: "),
    "missing tree": (lambda d: shutil.rmtree(d / "state"), "every array, the first of them step: "),
    "facts changed": (edit_facts, "file facts/metadata: does not match its digest"),
    "facts missing": (lambda d: (d / "facts" / "metadata").unlink(), "file facts/metadata: is missing"),
    "facts no JSON": (lambda d: (d / "facts" / "metadata").write_text("{"), "file facts/metadata: Expecting"),
    "digests changed": (edit_digests, "file digests/metadata: does not match its own digest"),
    "digests empty": (lambda d: (d / "digests" / "metadata").write_text(""), "file digests/metadata: Expecting"),
    "digests other JSON": (lambda d: (d / "digests" / "metadata").write_text("[]"), "does not match its own digest"),
    "manifest damaged": (
        lambda d: (d / "state" / "manifest.ocdbt").write_bytes(b"\0" * 50), "every array, .*manifest.ocdbt"
    ),
    "nothing inside": (lambda d: (shutil.rmtree(d), d.mkdir()), "file digests/metadata: is missing"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_it_is_named_and_set_aside_and_the_one_before_is_used(directory, capfd, kind):
    spoil, message = DAMAGE[kind]
    spoil(directory / "6")
    left = sorted(path.relative_to(directory / "6") for path in (directory / "6").rglob("*"))
    restored = restore(directory)
    aside = directory / "set_aside" / "6-1"
    assert (restored.step, restored.facts) == (4, {"next_row": 40})
    assert same_bits(restored.state, STATES[4])
    assert restored.set_aside == (str(aside),)
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"checkpoint {directory / '6'} is damaged: ") and line.endswith(f"; set aside as {aside}")
    assert re.search(message, line), line
    assert sorted(path.relative_to(aside) for path in aside.rglob("*")) == left  # nothing of it is deleted
    assert restore(directory).set_aside == ()
    assert capfd.readouterr().err == ""


def test_two_are_damaged(directory, capfd):
    flip_one_bit(directory / "6")
    edit_facts(directory / "4")
    (directory / "4" / "facts" / "metadata").write_text("no")
    restored = restore(directory)
    assert restored.step == 2 and same_bits(restored.state, STATES[2])
    assert [Path(path).name for path in restored.set_aside] == ["6-1", "4-1"]
    assert len(capfd.readouterr().err.splitlines()) == 2


def test_none_is_whole(directory, capfd):
    """Never a silent start from scratch, neither now nor when the command is repeated."""
    for step in (2, 4, 6):
        (directory / str(step) / "facts" / "metadata").unlink()
    for _ in range(2):
        with pytest.raises(UserError, match=r"no whole checkpoint in .*set_aside \(2-1, 4-1, 6-1\).*another directory"):
            restore(directory)
    assert len(capfd.readouterr().err.splitlines()) == 3


def test_the_step_is_saved_anew_and_may_be_damaged_again(directory, capfd):
    for count in (1, 2):
        edit_facts(directory / "6")
        one = Checkpointer(directory, CONFIG)
        assert one.restore(abstract(STATES[2])).step == 4
        one.save(6, STATES[6], {"next_row": 60}, force=True)
        assert one.restore(abstract(STATES[2])).step == 6
        one.close()
        assert sorted(os.listdir(directory / "set_aside")) == [f"6-{n}" for n in range(1, count + 1)]
    capfd.readouterr()


def test_parameters_of_a_damaged_checkpoint_are_refused(directory):
    flip_one_bit(directory / "6")
    wanted = {"params": abstract(STATES[2].params)}
    with pytest.raises(UserError, match=f"6 is damaged: array {KERNEL}: differs.*move the folder away"):
        restore_parts(directory, wanted)
    assert sorted(os.listdir(directory)) == ["2", "4", "6"]  # another run's: nothing is moved
    assert same_bits(restore_parts(directory, wanted, step=4).state["params"], STATES[4].params)


def test_damage_elsewhere_does_not_keep_parameters_from_being_read(directory):
    path, place = locate(directory / "6", np.asarray(STATES[6].params["embedder"]["embedding"]).tobytes())
    overwrite(path, place, b"\1")
    head = {"params": {"head": abstract(STATES[6].params["head"])}}
    assert same_bits(restore_parts(directory, head).state["params"]["head"], STATES[6].params["head"])


def test_any_damage_to_any_file_is_noticed_or_harmless(pristine, tmp_path, capfd):
    """Random bit flips, truncations, losses and zeroed ranges: what is restored is right, whichever step it is."""
    rng = random.Random(0)
    files = sorted(path.relative_to(pristine) for path in (pristine / "6").rglob("*") if path.is_file())
    noticed = 0
    for number, name in enumerate(rng.choices(files, k=60)):
        directory = Path(shutil.copytree(pristine, tmp_path / str(number)))
        data = bytearray((directory / name).read_bytes())
        place, how = rng.randrange(len(data)), rng.randrange(4)
        if how == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif how == 1:
            del data[place:]
        elif how == 2:
            data[place : place + 200] = bytes(len(data[place : place + 200]))
        (directory / name).write_bytes(data)
        if how == 3:
            (directory / name).unlink()
        restored = restore(directory)
        assert same_bits(restored.state, STATES[restored.step]), (name, place, how)
        assert restored.facts == {"next_row": 10 * restored.step}
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == len(restored.set_aside) == (restored.step == 4), lines
        noticed += restored.step == 4
    assert noticed >= 10


@pytest.mark.slow
def test_a_process_of_its_own_prints_the_one_line_only(tmp_path):
    """With every array unreadable, Orbax leaves most reads behind: nothing is heard of them, to the very end."""
    script = Path(__file__).parent / "save_process.py"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(script.parent)])}
    command = [sys.executable, str(script), "train", str(tmp_path / "run"), "3"]
    one, state = Checkpointer(tmp_path / "run", CONFIG), make_state(width=128)
    for step in (2, 3):
        one.save(step, state._replace(step=jnp.int32(step)), {})
    one.close()
    for path in (tmp_path / "run" / "3" / "state").rglob("d/*"):
        os.truncate(path, path.stat().st_size // 2)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "resumed 2")
    [line] = done.stderr.splitlines()
    assert "is damaged: " in line and line.endswith("set_aside/3-1")


def test_running_out_of_memory_is_no_damage(directory, monkeypatch):
    from hephaestus_jax.checkpoints import storage

    def out_of_memory(path, abstract):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte.")

    monkeypatch.setattr(storage, "_restore", out_of_memory)
    with pytest.raises(jax.errors.JaxRuntimeError):
        restore(directory)
    assert sorted(os.listdir(directory)) == ["2", "4", "6"]
