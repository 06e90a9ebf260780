"""Mixed products: float32 sums of bfloat16 operands, forward and backward, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hephaestus_jax.products import einsum_float32, project

CASES = [
    ("bld,dv->blv", (4, 32, 16), (16, 320)),
    ("bld,blv->dv", (4, 32, 16), (4, 32, 24)),
    ("blkgh,bmkh->bkglm", (2, 8, 2, 3, 4), (2, 10, 2, 4)),
    ("bkglm,bmkh->blkgh", (2, 2, 3, 8, 10), (2, 10, 2, 4)),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("subscripts", "shape_a", "shape_b"), CASES)
def test_value_and_gradients(subscripts: str, shape_a: tuple, shape_b: tuple, dtype: str) -> None:
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=shape), dtype) for shape in (shape_a, shape_b))
    wide_a, wide_b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    expected = np.einsum(subscripts, wide_a, wide_b)
    weights = jnp.asarray(rng.normal(size=expected.shape), dtype).astype(jnp.float32)

    def objective(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
        product = einsum_float32(subscripts, a, b)
        return jnp.sum(product * weights), product

    (d_a, d_b), product = jax.jit(jax.grad(objective, (0, 1), has_aux=True))(a, b)
    assert product.dtype == jnp.float32
    assert (d_a.dtype, d_b.dtype) == (a.dtype, b.dtype)
    np.testing.assert_allclose(product, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    inputs, _, result = subscripts.partition("->")
    of_a, _, of_b = inputs.partition(",")
    wide = np.asarray(weights, np.float64)
    tolerance = 1e-5 if dtype == "float32" else 2**-8
    for found, right in (
        (d_a, np.einsum(f"{result},{of_b}->{of_a}", wide, wide_b)),
        (d_b, np.einsum(f"{of_a},{result}->{of_b}", wide_a, wide)),
    ):
        spread = 1e-5 * np.abs(right).max()
        np.testing.assert_allclose(np.asarray(found, np.float64), right, rtol=tolerance, atol=spread)


def test_a_choice_by_platform_keeps_nothing_twice() -> None:
    """What the backward pass keeps is the operands, in their own dtype."""
    a, b = jnp.ones((8, 16), jnp.bfloat16), jnp.ones((16, 32), jnp.bfloat16)
    _, backward = jax.vjp(lambda a, b: einsum_float32("ij,jk->ik", a, b), a, b)
    kept = [x for x in jax.tree.leaves(backward) if hasattr(x, "dtype")]
    assert {(x.shape, x.dtype.name) for x in kept} == {((8, 16), "bfloat16"), ((16, 32), "bfloat16")}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("shape", "kernel", "contracted"), [((2, 5, 6), (6, 3, 4), 1), ((2, 5, 3, 4), (3, 4, 6), 2)])
def test_projection_has_the_gradients_of_tensordot(shape: tuple, kernel: tuple, contracted: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, weight = (jnp.asarray(rng.normal(size=size), dtype) for size in (shape, kernel))
    right, right_backward = jax.vjp(lambda x, weight: jnp.tensordot(x, weight, contracted), x, weight)
    found, found_backward = jax.vjp(lambda x, weight: project(x, weight, contracted), x, weight)
    cotangent = jnp.asarray(rng.normal(size=right.shape), dtype)
    tolerance = 1e-5 if dtype == "float32" else 2**-7
    for a, b in zip((found, *found_backward(cotangent)), (right, *right_backward(cotangent)), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        wide_a, wide_b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(wide_a, wide_b, rtol=tolerance, atol=tolerance)


def test_gradient_of_a_projection_is_not_transposed() -> None:
    """The slow way that it is there to avoid: the weight's gradient turned round after its product."""
    x, weight = jnp.ones((2, 5, 6)), jnp.ones((6, 8))
    program = jax.make_jaxpr(jax.grad(lambda weight: jnp.sum(jnp.sin(project(x, weight, 1)))))(weight)
    assert "transpose[" not in str(program)
