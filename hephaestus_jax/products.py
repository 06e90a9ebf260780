"""Matrix products that add up in float32, and what scores and logits, which are such, go through."""

from __future__ import annotations

import contextlib
import functools
from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from hephaestus_jax.config import DType

PRODUCT = "product"
"""Name of what `einsum_float32` gives, for remat policies that keep products: they do not see into it."""


def precise(dtype: DType) -> AbstractContextManager:
    """Inside, float32 products keep float32 if that is `dtype`: accelerators take fewer bits unless told."""
    return jax.default_matmul_precision("highest") if dtype == "float32" else contextlib.nullcontext()


def einsum_float32(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """`jnp.einsum` of two arrays whose sums and result are float32, whatever their dtype.

    The backward pass takes its products in the operands' dtype too, as the forward pass does, and adds up in float32.

    On CPUs operands of fewer bits are widened first: XLA's CPU backend lacks some of the mixed products (jax 0.10,
    "Unsupported element type for DotThunk"), and which of them depends on the shapes. Widening is exact.

    Args:
        subscripts: "A,B->C" where every letter occurs in two of the three at least.
    """
    if a.dtype == b.dtype == jnp.float32:
        return jnp.einsum(subscripts, a, b)
    return checkpoint_name(_mixed_einsum(subscripts, a, b), PRODUCT)


# By hand, because the derivative of a choice by platform would keep what every branch needs.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mixed_einsum(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    def widened(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.einsum(subscripts, a.astype(jnp.float32), b.astype(jnp.float32))

    def mixed(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32)

    return jax.lax.platform_dependent(a, b, cpu=widened, default=mixed)


def _forward(subscripts: str, a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _mixed_einsum(subscripts, a, b), (a, b)


def _backward(
    subscripts: str, operands: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    a, b = operands
    inputs, _, of_result = subscripts.partition("->")
    of_a, _, of_b = inputs.partition(",")
    d_a = _mixed_einsum(f"{of_result},{of_b}->{of_a}", cotangent.astype(a.dtype), b)
    d_b = _mixed_einsum(f"{of_a},{of_result}->{of_b}", a, cotangent.astype(b.dtype))
    return d_a.astype(a.dtype), d_b.astype(b.dtype)


_mixed_einsum.defvjp(_forward, _backward)


def soft_capped(x: jax.Array, cap: float) -> jax.Array:
    """cap · tanh(x / cap), which stays within ±cap (Gemma 2, arXiv 2408.00118); `x` itself for a cap of 0."""
    return cap * jnp.tanh(x / cap) if cap else x


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def project(x: jax.Array, kernel: jax.Array, contracted: int) -> jax.Array:
    """`jnp.tensordot(x, kernel, contracted)`: the last `contracted` axes of `x` with the first of `kernel`.

    The gradient of the kernel comes out in the kernel's own order of axes. JAX's own derivative makes it transposed and
    turns it round, for which XLA's CPU backend rearranges the large operand of the product instead, element by element.
    """
    return jnp.tensordot(x, kernel, contracted)


def _project_forward(x: jax.Array, kernel: jax.Array, contracted: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    with precise("float32" if x.dtype == jnp.float32 else "bfloat16"):
        return jnp.tensordot(x, kernel, contracted), (x, kernel)


def _project_backward(
    contracted: int, operands: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = operands
    leading, outputs = x.ndim - contracted, kernel.ndim - contracted
    with precise("float32" if x.dtype == jnp.float32 else "bfloat16"):
        last = (tuple(range(leading, leading + outputs)), tuple(range(contracted, kernel.ndim)))
        d_x = jnp.tensordot(cotangent, kernel, axes=last)
        d_kernel = jnp.tensordot(x, cotangent, axes=(tuple(range(leading)),) * 2)
    return d_x, d_kernel


project.defvjp(_project_forward, _project_backward)
