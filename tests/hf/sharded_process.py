"""Imports a model on eight devices under several shardings, where no library of Hugging Face can be imported."""

# ruff: noqa: E402
import sys

for name in ("torch", "transformers", "safetensors", "tokenizers", "huggingface_hub"):
    sys.modules[name] = None  # type: ignore[assignment]

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from hephaestus_jax.config import MeshConfig
from hephaestus_jax.hf import compare, config_files, exporting, importing, layout, origin
from hephaestus_jax.model.decoder import abstract_parameters, parameter_axes
from hephaestus_jax.sharding import make_mesh

assert compare and exporting and origin
layout.CHUNK_BYTES = 200
folder = sys.argv[1]
model = config_files.read_config(folder).model
plain = importing.import_parameters(folder, abstract_parameters(model), progress=False)
assert len(jax.devices()) == 8

SHARDINGS = {
    "layers over fsdp": (MeshConfig(fsdp=3, tensor=2), {"layers": "fsdp", "embed": "tensor"}),
    "heads over tensor": (MeshConfig(fsdp=4, tensor=2), {"heads": "tensor", "kv_heads": "tensor", "embed": "fsdp"}),
    "head dimension over tensor": (MeshConfig(fsdp=2, tensor=4), {"head_dim": "tensor", "mlp": ("fsdp", "tensor")}),
    "replicated": (MeshConfig(fsdp=8), {}),
}


def check(words, mesh_config, table):
    mesh = make_mesh(mesh_config, jax.devices()[: mesh_config.fsdp * mesh_config.tensor])

    def with_sharding(leaf, axes):
        spec = PartitionSpec(*(table.get(axis) for axis in axes))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    abstract = jax.tree.map(with_sharding, abstract_parameters(model), parameter_axes(model))
    found = importing.import_parameters(folder, abstract, progress=False)
    for one, other, wanted in zip(*map(jax.tree.leaves, (found, plain, abstract)), strict=True):
        assert one.sharding == wanted.sharding
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        for shard in one.addressable_shards:
            np.testing.assert_array_equal(np.asarray(shard.data), np.asarray(other)[shard.index])
    print(words)


for words, (mesh_config, table) in SHARDINGS.items():
    check(words, mesh_config, table)
importing._HostArray = importing._DeviceArray  # as on accelerators
check("layer by layer", *SHARDINGS["layers over fsdp"])
