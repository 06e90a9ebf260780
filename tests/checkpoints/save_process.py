"""Saves from a process of its own. Arguments: a command and the checkpoint directory, then what the command takes."""

from __future__ import annotations

import os
import sys

command, directory = sys.argv[1:3]
devices = {"mesh": 8, "process": 2}.get(command, 1)
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices} {os.environ.get('XLA_FLAGS', '')}"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import numpy as np  # noqa: E402
from jax.experimental import multihost_utils  # noqa: E402
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec  # noqa: E402
from states import make_state, same_bits, train_step  # noqa: E402

from hephaestus_jax import distributed  # noqa: E402
from hephaestus_jax.checkpoints import Checkpointer, digests, storage  # noqa: E402
from hephaestus_jax.config import CheckpointConfig  # noqa: E402
from tools._command import run  # noqa: E402

AXES = ("data", "fsdp", "tensor")


def shardings_on(mesh: Mesh, state):
    """Rows of matrices over fsdp, columns over tensor, the rest replicated."""

    def sharding(leaf):
        divides = leaf.ndim >= 2 and leaf.shape[-2] % mesh.shape["fsdp"] == 0 == leaf.shape[-1] % mesh.shape["tensor"]
        spec = (*[None] * (leaf.ndim - 2), "fsdp", "tensor") if divides else ()
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(sharding, state)


def on_mesh(shape: tuple[int, int, int], axis_type: AxisType = AxisType.Auto):
    """The state of seed 1 on a mesh of that shape, and its abstract form."""
    mesh = Mesh(np.array(jax.devices()).reshape(shape), AXES, axis_types=(axis_type,) * 3)
    state = make_state(seed=1)
    shardings = shardings_on(mesh, state)
    state = jax.jit(lambda: make_state(seed=1), out_shardings=shardings)()
    return state, jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)


def mesh() -> None:
    """Digests on every mesh; what one mesh saved, the others restore."""
    expected = make_state(seed=1)
    by_one_device = digests.array_digests(storage.named_leaves(expected))
    meshes = {(8, 1, 1): AxisType.Auto, (1, 8, 1): AxisType.Explicit, (2, 2, 2): AxisType.Auto}
    for number, (shape, axis_type) in enumerate(meshes.items(), 1):
        state, abstract = on_mesh(shape, axis_type)
        assert digests.array_digests(storage.named_leaves(state)) == by_one_device, shape
        one = Checkpointer(directory, CheckpointConfig(every_steps=1, keep=9))
        if number > 1:
            restored = one.restore(abstract)
            assert restored.step == number - 1 and same_bits(restored.state, expected)
            right = jax.tree.map(lambda x, y: x.sharding == y.sharding, restored.state, abstract)
            assert jax.tree.all(right), right
        one.save(number, state, {})
        one.close()
    matrix = state.params["layers"]["mlp"]["up"]["kernel"]
    replicated = NamedSharding(matrix.sharding.mesh, PartitionSpec())
    text = digests._compiled(replicated).lower(matrix).compile().as_text()
    gathered = [line for line in text.splitlines() if " all-gather(" in line or " all-to-all(" in line]
    assert gathered and not any("f32[4,32,64]" in line or "u32[4,32,64]" in line for line in gathered), gathered
    print("all well")


def process() -> None:
    """One of two processes with two devices each. Further arguments: its number, port, "save" or "restore"."""
    number, port, action = sys.argv[3:]
    distributed.initialise(distributed.Cluster(f"127.0.0.1:{port}", 2, int(number)))
    with distributed.ending_together():
        state, abstract = on_mesh((1, 2, 2))
        one = Checkpointer(directory, CheckpointConfig(every_steps=2, every_minutes=1 / 60, keep=2))
        if action == "save":
            assert one.restore(abstract) is None
            assert [step for step in range(1, 7) if one.should_save(step)][-1] == 6
            for step in range(1, 5):
                one.save(step, state, {"step": step}, force=True)
        restored = one.restore(abstract)
        local = jax.tree.leaves(jax.tree.map(lambda x: [s.data for s in x.addressable_shards], restored.state))
        wanted = jax.tree.leaves(jax.tree.map(lambda x: [s.data for s in x.addressable_shards], state))
        assert same_bits(local, wanted)
        print("restored", restored.step, restored.facts, [os.path.basename(path) for path in restored.set_aside])
        one.close()
        multihost_utils.sync_global_devices("end")


def train() -> None:
    """Trains to a given step, saving after each, and prints the losses. Further argument: the last step."""
    config = CheckpointConfig(every_steps=1, keep=2)
    one = Checkpointer(directory, config)
    state = make_state(width=128)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    first = 0
    if (restored := one.restore(abstract)) is not None:
        state, first = restored.state, restored.step
    print("resumed", first, flush=True)
    for step in range(first + 1, int(sys.argv[3]) + 1):
        state, loss = train_step(state)
        print("loss", step, float(loss).hex(), flush=True)
        one.save(step, state, {"next_row": 8 * step})
    one.close()


if __name__ == "__main__":
    run({"mesh": mesh, "process": process, "train": train}[command])
