"""Attention kernels on meshes of eight virtual devices, and compiled for TPUs; prints what came out as JSON.

Nothing here judges; `test_kernels.py` does. One process for both, because both must set up JAX before its first use.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hephaestus_jax.compile_check import topologies
from hephaestus_jax.config import ComputeConfig, MeshConfig, ModelConfig
from hephaestus_jax.model import attention, splash, triton_attention
from hephaestus_jax.model.attention import Masking
from hephaestus_jax.model.context_attention import row_order
from hephaestus_jax.model.decoder import abstract_parameters, decode, parameter_axes
from hephaestus_jax.sharding import Partitioning, constrain, make_mesh

Attend = Callable[..., jax.Array]  # queries, keys, values, segment ids -> output

ROWS, LENGTH, HEAD_DIM = 2, 512, 8
SEGMENTS = np.array([[1] * 128 + [2] * 100 + [3] * 200 + [0] * 84, [4] * 511 + [5]], np.int32)
# kernel, mesh, query heads, key/value heads, masking
CASES = {
    "rows and heads": ("splash", MeshConfig(fsdp=2, tensor=2), 4, 2, Masking(softcap=3.0)),
    "several devices to a key/value head": ("splash", MeshConfig(data=2, fsdp=1, tensor=4), 4, 2, Masking()),
    "heads of a device share no one head": ("splash", MeshConfig(fsdp=1, tensor=4), 12, 3, Masking()),
    "length": ("splash", MeshConfig(fsdp=1, context=2, tensor=2), 4, 1, Masking(window=200)),
    "length, one backward kernel": ("splash_fused", MeshConfig(fsdp=1, context=2, tensor=2), 4, 1, Masking()),
    "rows and heads on GPUs": ("triton", MeshConfig(fsdp=2, tensor=4), 8, 2, Masking()),
}
CHIPS = "v5e:2x2"
# mesh, dtype, length, head_dim, masking, whether the backward pass is one kernel
PROGRAMS: dict[str, tuple[Any, ...]] = {
    "rows and heads": (MeshConfig(fsdp=2, tensor=2), "bfloat16", 256, 64, Masking(window=200, softcap=30.0)),
    "length": (MeshConfig(fsdp=2, context=2), "float32", 512, 128, Masking()),
    "one backward kernel": (MeshConfig(fsdp=2, tensor=2), "bfloat16", 512, 128, Masking(), True),
}
COLLECTIVES = re.compile(r" (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")

# A fused reduce-scatter is written as an all-reduce and a slice in a computation of that name.
FUSED_SCATTER = re.compile(r"^%all-reduce-scatter.*?^}", re.MULTILINE | re.DOTALL)


def divided(partitioning: Partitioning, attend: Attend) -> Attend:
    """The same of arrays in natural order, divided over a mesh and changed to its order and back."""

    def on_mesh(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array) -> jax.Array:
        places = row_order(q.shape[1], partitioning.context)
        axes = [("batch", "length", heads, "head_dim") for heads in ("heads", "kv_heads", "kv_heads")]
        with partitioning:
            q, k, v = (constrain(x[:, places], names) for x, names in zip((q, k, v), axes, strict=True))
            return constrain(attend(q, k, v, segment_ids[:, places]), axes[0])[:, np.argsort(places)]

    return on_mesh


def gradients(attend: Attend) -> Callable[..., Any]:
    def total(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = attend(q, k, v, segment_ids)
        return (out * jnp.cos(jnp.arange(out.size).reshape(out.shape))).astype(jnp.float32).sum(), out

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))


def compare(kernel: str, mesh: MeshConfig, heads: int, kv_heads: int, masking: Masking) -> list[float]:
    """Largest differences of the output and its gradients from the reference on one device."""
    shapes = [(ROWS, LENGTH, count, HEAD_DIM) for count in (heads, kv_heads, kv_heads)]
    arrays = [np.random.default_rng(i).standard_normal(shape).astype(np.float32) for i, shape in enumerate(shapes)]
    wanted = gradients(functools.partial(attention.reference, masking=masking))(*arrays, SEGMENTS)
    partitioning = mesh_for(mesh, heads, kv_heads, HEAD_DIM, jax.devices())
    emulated = functools.partial(triton_attention.triton, masking=masking, interpret=True)
    if kernel != "triton":
        places, fused = row_order(LENGTH, partitioning.context), kernel == "splash_fused"
        emulated = functools.partial(
            splash.splash, masking=masking, places=places, fused_backward=fused, interpret=True
        )
    got = gradients(divided(partitioning, emulated))(*arrays, SEGMENTS)
    pairs = zip(jax.tree.leaves(got)[1:], jax.tree.leaves(wanted)[1:], strict=True)
    return [float(np.abs(a - b).max()) for a, b in pairs]


def mesh_for(mesh: MeshConfig, heads: int, kv_heads: int, head_dim: int, devices: list[Any]) -> Partitioning:
    model = ModelConfig("heads only", 128, heads * head_dim, 128, 1, heads, kv_heads, head_dim)
    count = math.prod(mesh.axes.values())
    return Partitioning(make_mesh(mesh, devices[:count]), model)


def compiled(
    mesh: MeshConfig, dtype: str, length: int, head_dim: int, masking: Masking, fused_backward: bool = False
) -> dict[str, Any]:
    """Kernels and collectives of the program that libtpu makes of value and gradients."""
    heads, kv_heads = 4, 2
    partitioning = mesh_for(mesh, heads, kv_heads, head_dim, tpu_chips())

    def abstract(count: int, name: str) -> jax.ShapeDtypeStruct:
        sharding = partitioning.sharding(("batch", "length", name, "head_dim"))
        return jax.ShapeDtypeStruct((ROWS, length, count, head_dim), dtype, sharding=sharding)

    q, k = abstract(heads, "heads"), abstract(kv_heads, "kv_heads")
    segments = jax.ShapeDtypeStruct((ROWS, length), np.int32, sharding=partitioning.sharding(("batch", "length")))

    def total(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array) -> jax.Array:
        with partitioning:
            places = row_order(length, partitioning.context)
            out = splash.splash(q, k, v, segment_ids, masking, places=places, fused_backward=fused_backward)
            return out.astype(jnp.float32).sum()

    text = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(q, k, k, segments).compile().as_text()
    assert text is not None
    return {
        "kernels": sorted(set(re.findall(r"splash_mha_(\w+?)_segmented", text))),
        "collectives": Counter(COLLECTIVES.findall(FUSED_SCATTER.sub("", text))),
        "reduce-scatters": len(re.findall(r"calls=%all-reduce-scatter", text)),
    }


def kernels_of_a_decoder(remat: str) -> dict[str, int]:
    """How often each kernel is in the gradient of a decoder under that remat policy; the layers are in it once."""
    model = ModelConfig("small", 128, 64, 64, 2, 2, 1, 32)
    partitioning = Partitioning(make_mesh(MeshConfig(fsdp=4), tpu_chips()), model)
    shardings = partitioning.tree(parameter_axes(model))
    params = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        abstract_parameters(model), shardings,
    )  # fmt: skip
    rows = jax.ShapeDtypeStruct((4, 128), np.int32, sharding=partitioning.batch)

    def total(params: Any, tokens: jax.Array, segment_ids: jax.Array, positions: jax.Array) -> jax.Array:
        compute = ComputeConfig(attention="splash", remat=remat)
        with partitioning:
            return decode(params, model, compute, tokens, segment_ids, positions).astype(jnp.float32).sum()

    text = jax.jit(jax.grad(total)).lower(params, rows, rows, rows).as_text()
    return Counter(re.findall(r'kernel_name = "splash_mha_([a-z]+)', text))


def tpu_chips() -> list[Any]:
    return topologies.describe(topologies.parse_topology(CHIPS))


def main() -> None:
    topologies.prepare_environment()
    splash.MAX_BLOCK = 256
    found: dict[str, Any] = {"differences": {name: compare(*case) for name, case in CASES.items()}}
    if importlib.util.find_spec("libtpu"):
        found["programs"] = {name: compiled(*program) for name, program in PROGRAMS.items()}
        found["decoders"] = {remat: kernels_of_a_decoder(remat) for remat in ("full", "dots")}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
