"""Imports a model onto 8 devices under several shardings and exports it from there, without Hugging Face libraries."""

# ruff: noqa: E402
import sys
from pathlib import Path

for name in ("torch", "transformers", "safetensors", "tokenizers", "huggingface_hub"):
    sys.modules[name] = None  # type: ignore[assignment]

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from hephaestus_jax.config import MeshConfig
from hephaestus_jax.hf import compare, config_files, exporting, importing, layout, origin
from hephaestus_jax.hf.destinations import reader_of
from hephaestus_jax.model.decoder import abstract_parameters, parameter_axes
from hephaestus_jax.sharding import make_mesh

assert compare
layout.CHUNK_BYTES = 200
folder = Path(sys.argv[1])
model = config_files.read_config(folder).model
plain = importing.import_parameters(folder, abstract_parameters(model), progress=False)
kept = origin.keep_origin(folder, folder.with_name("origin"))
assert len(jax.devices()) == 8

SHARDINGS = {
    "layers over fsdp": (MeshConfig(fsdp=3, tensor=2), {"layers": "fsdp", "embed": "tensor"}),
    "heads over tensor": (MeshConfig(fsdp=4, tensor=2), {"heads": "tensor", "kv_heads": "tensor", "embed": "fsdp"}),
    "head dimension over tensor": (MeshConfig(fsdp=2, tensor=4), {"head_dim": "tensor", "mlp": ("fsdp", "tensor")}),
    "replicated": (MeshConfig(fsdp=8), {}),
}
if model.experts is not None:
    over_fsdp = {"experts": "fsdp", "expert_mlp": "tensor", "router": "fsdp"}
    SHARDINGS["experts over fsdp"] = (MeshConfig(fsdp=2, tensor=4), over_fsdp)
    SHARDINGS["experts over tensor"] = (MeshConfig(fsdp=3, tensor=2), {"layers": "fsdp", "experts": "tensor"})


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
    out = folder.with_name(words)
    exporting.export_model(out, model, reader_of(found), kept, progress=False)
    assert all(path.read_bytes() == (folder / path.name).read_bytes() for path in out.iterdir())
    print(words)


for words, (mesh_config, table) in SHARDINGS.items():
    check(words, mesh_config, table)
importing.HostArray = importing.DeviceArray  # as on accelerators
check("layer by layer", *SHARDINGS["layers over fsdp"])
