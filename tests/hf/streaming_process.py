"""One of several processes that import a model with experts onto one mesh: `streaming_process.py FOLDER`.

Onto one after the other of several meshes. It prints what it read from files, by the system's count, and what its
slices come to, and compares every slice with the file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from hephaestus_jax import distributed
from hephaestus_jax.config import MeshConfig
from hephaestus_jax.hf import importing
from hephaestus_jax.hf.checkpoint import open_checkpoint
from hephaestus_jax.model.decoder import abstract_parameters, parameter_axes
from hephaestus_jax.sharding import Partitioning, make_mesh

MESHES = {
    "fsdp": MeshConfig(fsdp=8),
    "expert and tensor": MeshConfig(expert=4, tensor=2),
    "data and fsdp": MeshConfig(data=2, fsdp=4),
}


def bytes_read() -> int:
    """By read calls of this process so far, sockets included."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def wanted(tensors: Mapping[str, np.ndarray], layers: int, experts: int) -> dict[str, Callable[[], np.ndarray]]:
    """Some parameters, made of the tensors by hand."""

    def layered(name: str, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return np.stack([change(tensors[f"model.layers.{layer}.{name}.weight"]) for layer in range(layers)])

    def per_expert(name: str) -> np.ndarray:
        each = [[tensors[f"model.layers.{y}.mlp.experts.{e}.{name}.weight"].T for e in range(experts)]
                for y in range(layers)]  # fmt: skip
        return np.array(each)

    d = tensors["model.norm.weight"].size
    return {
        "embedder/embedding": lambda: tensors["model.embed_tokens.weight"],
        "head/kernel": lambda: tensors["lm_head.weight"].T,
        "layers/experts/router/kernel": lambda: layered("mlp.gate", np.transpose),
        "layers/experts/gate/kernel": lambda: per_expert("gate_proj"),
        "layers/experts/up/kernel": lambda: per_expert("up_proj"),
        "layers/experts/down/kernel": lambda: per_expert("down_proj"),
        "layers/attention/query/kernel": lambda: layered("self_attn.q_proj", lambda x: x.T.reshape(d, 4, 8)),
        "layers/attention/out/kernel": lambda: layered("self_attn.o_proj", lambda x: x.T.reshape(4, 8, d)),
        "layers/mlp_norm/scale": lambda: layered("post_attention_layernorm", lambda x: x),
    }  # fmt: skip


def measure(folder: str, words: str) -> None:
    model = open_checkpoint(folder).model
    partitioning = Partitioning(make_mesh(MESHES[words]), model)
    shardings = partitioning.tree(parameter_axes(model))
    abstract: Any = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract_parameters(model), shardings,
    )  # fmt: skip
    importing.import_parameters(folder, abstract, progress=False)  # loads what is loaded at first use
    before = bytes_read()
    open_checkpoint(folder)
    headers = bytes_read() - before
    before = bytes_read()
    params = importing.import_parameters(folder, abstract, progress=False)
    read = bytes_read() - before - headers
    slices = 0
    tensors = safetensors.numpy.load_file(Path(folder) / "model.safetensors")
    expected = wanted(tensors, model.num_layers, model.experts.num_experts if model.experts else 0)
    for path, array in jax.tree_util.tree_leaves_with_path(params):
        parts = {str(shard.index): shard for shard in array.addressable_shards}
        slices += sum(part.data.nbytes for part in parts.values())
        if make := expected.pop(jax.tree_util.keystr(path, simple=True, separator="/"), None):
            for part in array.addressable_shards:
                np.testing.assert_array_equal(np.asarray(part.data), make()[part.index])
    assert not expected, expected
    whole = sum(array.nbytes for array in tensors.values())
    print(f"mesh {words}: read {read} slices {slices} of {whole}", flush=True)


if __name__ == "__main__":
    with distributed.ending_together():
        distributed.initialise()
        for words in MESHES:
            measure(sys.argv[1], words)
