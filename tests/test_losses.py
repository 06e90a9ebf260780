"""The loss against NumPy in float64, and what its compiled programs hold and send."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import loss_programs as programs
import numpy as np
import pytest
from compiling import OPTIMISED, QUICK
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.errors import UserError
from hephaestus_jax.losses import LossSums, cross_entropy_sums, next_token_targets
from tools.benchmark import __main__ as benchmark

ROOT = Path(__file__).resolve().parents[1]
MESHES = ("2,2,2", "1,8,1")  # data, fsdp, tensor
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"--xla_force_host_platform_device_count=8 {QUICK}",
    "PYTHONPATH": str(ROOT),
}


class Case:
    """Random inputs of given sizes; weights from `weights`."""

    def __init__(
        self,
        rows: int = 3,
        length: int = 10,
        embed: int = 6,
        vocabulary: int = 23,
        groups: int = 2,
        weights: tuple[float, ...] = (0.0, 0.25, 1.0, 2.5),
        scale: float = 1.0,
        dtype: str = "float32",
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.num_groups = groups
        self.hidden = jnp.asarray(scale * rng.standard_normal((rows, length, embed)), dtype)
        self.kernel = jnp.asarray(rng.standard_normal((embed, vocabulary)), jnp.float32)
        self.targets = jnp.asarray(rng.integers(0, vocabulary, (rows, length)), jnp.int32)
        self.weights = jnp.asarray(rng.choice(weights, (rows, length)), jnp.float32)
        self.groups = jnp.asarray(rng.integers(0, groups, rows), jnp.int32)

    def everything(self, z_loss: float, chunk: int, softcap: float = 0.0, optimised: bool = False) -> Everything:
        arrays = (self.hidden, self.kernel, self.targets, self.weights, self.groups)
        return (everything_optimised if optimised else everything)(*arrays, self.num_groups, z_loss, chunk, softcap)


Everything = tuple[LossSums, tuple[jax.Array, jax.Array], LossSums]


def _everything(hidden: jax.Array, kernel: jax.Array, *others: Any) -> Everything:
    """The sums, the gradients of hidden and kernel, and the sums that came with the gradients."""

    def objective(hidden: jax.Array, kernel: jax.Array) -> tuple[jax.Array, LossSums]:
        found = cross_entropy_sums(hidden, kernel, *others)
        return found.objective, found

    gradients, sums = jax.grad(objective, argnums=(0, 1), has_aux=True)(hidden, kernel)
    return cross_entropy_sums(hidden, kernel, *others), gradients, sums


everything = jax.jit(_everything, static_argnums=(5, 6, 7, 8))
everything_optimised = jax.jit(_everything, static_argnums=(5, 6, 7, 8), compiler_options=OPTIMISED)


def in_float64(
    case: Case, z_loss: float, hidden: Any = None, kernel: Any = None, softcap: float = 0.0
) -> dict[str, np.ndarray]:
    """Sums and gradients by the definitions; the kernel is rounded to the dtype of hidden, as the product sees it."""
    hidden = np.asarray(case.hidden, np.float64) if hidden is None else hidden
    kernel = np.asarray(case.kernel.astype(case.hidden.dtype), np.float64) if kernel is None else kernel
    targets, weights = np.asarray(case.targets), np.asarray(case.weights, np.float64)
    logits, slope = hidden @ kernel, 1.0
    if softcap:
        slope = np.cosh(logits / softcap) ** -2.0
        logits = softcap * np.tanh(logits / softcap)
    highest = logits.max(-1, keepdims=True)
    log_z = (highest + np.log(np.exp(logits - highest).sum(-1, keepdims=True)))[..., 0]
    loss = log_z - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    one_hot = np.eye(kernel.shape[1])[targets]
    d_logits = np.exp(logits - log_z[..., None]) * (1 + 2 * z_loss * log_z)[..., None] - one_hot
    d_logits *= weights[..., None] * slope
    of_group = [np.asarray(case.groups) == group for group in range(case.num_groups)]
    return {
        "objective": (weights * (loss + z_loss * log_z**2)).sum(),
        "loss_G": np.array([(weights * loss)[rows].sum() for rows in of_group]),
        "weight_G": np.array([weights[rows].sum() for rows in of_group]),
        "z_loss": (weights * z_loss * log_z**2).sum(),
        "tokens_G": np.array([(weights[rows] > 0).sum() for rows in of_group]),
        "d_hidden": d_logits @ kernel.T,
        "d_kernel": np.einsum("bld,blv->dv", hidden, d_logits),
    }


def relative(found: Any, expected: np.ndarray) -> float:
    """Largest difference as a share of the largest expected value."""
    difference = np.abs(np.asarray(found, np.float64) - expected).max()
    return float(difference / max(np.abs(expected).max(), 1e-30))


def check(
    case: Case,
    z_loss: float,
    chunk: int,
    tolerance: float = 2e-6,
    gradient_tolerance: float = 5e-6,
    softcap: float = 0.0,
) -> None:
    expected = in_float64(case, z_loss, softcap=softcap)
    sums, (d_hidden, d_kernel), sums_with_gradients = case.everything(z_loss, chunk, softcap)
    for name, found in sums._asdict().items():
        assert relative(found, expected[name]) <= tolerance, name
        assert relative(getattr(sums_with_gradients, name), expected[name]) <= tolerance, name
        assert found.dtype == ("int32" if name == "tokens_G" else "float32")
    assert (d_hidden.dtype, d_kernel.dtype) == (case.hidden.dtype, case.kernel.dtype)
    assert relative(d_hidden, expected["d_hidden"]) <= gradient_tolerance
    assert relative(d_kernel, expected["d_kernel"]) <= gradient_tolerance


# Targets


def test_targets_are_the_next_tokens_with_their_own_weights() -> None:
    tokens = jnp.array([[5, 6, 7, 8], [1, 2, 0, 0]])
    loss_weights = jnp.array([[0.0, 1.0, 0.5, 2.0], [0.0, 1.0, 0.0, 0.0]])
    targets, weights = next_token_targets(tokens, loss_weights)
    assert targets.tolist() == [[6, 7, 8, 0], [2, 0, 0, 0]]
    assert weights.tolist() == [[1.0, 0.5, 2.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    assert (targets.dtype, weights.dtype) == (jnp.int32, jnp.float32)
    assert next_token_targets(tokens[:, :1], loss_weights[:, :1])[1].tolist() == [[0.0], [0.0]]


# Values and gradients


@settings(max_examples=8, deadline=None)
@given(
    rows=st.integers(1, 4),
    length=st.integers(1, 13),
    chunk=st.integers(1, 16),
    groups=st.integers(1, 4),
    z_loss=st.sampled_from([0.0, 1e-4, 0.1]),
    softcap=st.sampled_from([0.0, 1.5, 30.0]),
    seed=st.integers(0, 1000),
)
def test_equals_float64_for_any_sizes(
    rows: int, length: int, chunk: int, groups: int, z_loss: float, softcap: float, seed: int
) -> None:
    """Chunks that divide the length, that do not, and that are longer than it."""
    check(Case(rows, length, groups=groups, seed=seed), z_loss, chunk, softcap=softcap)


@pytest.mark.parametrize("softcap", [0.0, 2.0])
def test_gradients_are_the_slopes_of_the_float64_loss(softcap: float) -> None:
    """By central differences of the NumPy loss, so that its gradient formula is not taken on trust."""
    case, z_loss, step = Case(length=7), 0.05, 1e-5
    _, gradients, _ = case.everything(z_loss, 3, softcap)
    rng = np.random.default_rng(1)
    inputs = {"hidden": np.asarray(case.hidden, np.float64), "kernel": np.asarray(case.kernel, np.float64)}
    for (name, x), gradient in zip(inputs.items(), gradients, strict=True):
        for _ in range(5):
            direction = rng.standard_normal(x.shape)
            ahead, behind = (
                in_float64(case, z_loss, **{name: x + sign * step * direction}, softcap=softcap) for sign in (1, -1)
            )
            slope = (ahead["objective"] - behind["objective"]) / (2 * step)
            assert float(np.vdot(np.asarray(gradient, np.float64), direction)) == pytest.approx(slope, rel=1e-5)


def test_bfloat16_has_float32_statistics() -> None:
    """Products of bfloat16 are exact in float32, so only the gradients are rounded to bfloat16 on the way."""
    check(Case(4, 40, 64, 3000, dtype="bfloat16", scale=0.5), 1e-3, 16, tolerance=3e-6, gradient_tolerance=8e-3)


def test_large_logits_neither_overflow_nor_lose_the_loss() -> None:
    case = Case(scale=3000.0, weights=(1.0,))
    expected, (sums, gradients, _) = in_float64(case, 0.0), case.everything(0.0, 4)
    assert expected["objective"] > 1e4
    assert relative(sums.objective, expected["objective"]) < 1e-6
    assert relative(gradients[0], expected["d_hidden"]) < 1e-3


def test_logits_far_above_the_cap_have_no_gradient_and_a_bounded_loss() -> None:
    sums, gradients, _ = Case(scale=3000.0, weights=(1.0,)).everything(0.0, 4, softcap=1.0)
    assert float(sums.objective) <= 30 * (2 + np.log(23))  # 30 tokens, logits within ±1
    assert all(np.isfinite(np.asarray(gradient)).all() for gradient in gradients)
    assert float(np.median(np.abs(np.asarray(gradients[0])))) < 1e-6


def test_cotangents() -> None:
    """The gradient scales with the objective's cotangent, goes through a transposed embedding, and ignores the rest."""
    case = Case()

    def sums(embedding: jax.Array) -> LossSums:
        return cross_entropy_sums(case.hidden, embedding.T, case.targets, case.weights, case.groups, 2, 0.0, 4)

    halved = jax.jit(jax.grad(lambda embedding: 0.5 * sums(embedding).objective))(case.kernel.T)
    assert relative(halved, 0.5 * in_float64(case, 0.0)["d_kernel"].T) < 5e-6
    of_others = jax.grad(lambda embedding: sums(embedding).loss_G.sum() + sums(embedding).z_loss)
    assert not np.asarray(jax.jit(of_others)(case.kernel.T)).any()


# Weights


def test_all_weights_zero() -> None:
    case = Case(weights=(0.0,))
    assert all(not np.asarray(x).any() for x in jax.tree.leaves(case.everything(0.1, 4)))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_weight_zero_contributes_exactly_nothing(value: float) -> None:
    case, plain = Case(length=11), Case(length=11)
    unused = (case.weights == 0)[..., None]
    case.hidden = jnp.where(unused, value, case.hidden)
    case.targets = jnp.where(unused[..., 0], 0, case.targets)
    found, expected = (each.everything(0.1, 4, optimised=True) for each in (case, plain))
    assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_and_weighs_shows_in_its_own_group(value: float) -> None:
    case = Case(rows=3, weights=(1.0,))
    case.groups = jnp.array([0, 1, 0])
    case.hidden = case.hidden.at[1, 4, 2].set(value)
    arrays = (case.hidden, case.kernel, case.targets, case.weights, case.groups)
    with jax.disable_jit():  # compilers may take a product with 0 or 1 for a selection
        sums = cross_entropy_sums(*arrays, 2, 0.0, 4)
    _, gradients, _ = case.everything(0.0, 4, optimised=True)
    assert not np.isfinite(float(sums.objective)) and not np.isfinite(float(sums.loss_G[1]))
    assert np.isfinite(float(sums.loss_G[0])) and np.isfinite(np.asarray(sums.weight_G)).all()
    assert not np.isfinite(np.asarray(gradients[1])).all()


def test_microbatches_with_very_unequal_masks_add_up() -> None:
    """No mean of means: four parts with 1 to 1,000 weighted tokens give the sums and gradients of the whole."""
    sizes = {"rows": 8, "length": 500, "embed": 16, "vocabulary": 100, "groups": 3}
    whole = Case(**sizes)
    rng = np.random.default_rng(2)
    share = np.repeat([1.0, 0.3, 0.01, 0.0], 2)[:, None]
    weights = rng.uniform(size=(8, 500)) * (rng.uniform(size=(8, 500)) < share)
    weights[6, 3] = 1.0
    whole.weights = jnp.asarray(weights, jnp.float32)
    parts = []
    for start in range(0, 8, 2):
        part = Case(rows=2, length=500, embed=16, vocabulary=100, groups=3)
        for name in ("hidden", "targets", "weights", "groups"):
            setattr(part, name, getattr(whole, name)[start : start + 2])
        part.kernel = whole.kernel
        parts.append(part)
    weighted = [int((part.weights > 0).sum()) for part in parts]
    assert weighted[0] > 900 and weighted[3] == 1
    expected_sums, expected, _ = whole.everything(1e-3, 128)
    sums, gradients, _ = zip(*[part.everything(1e-3, 128) for part in parts], strict=True)
    hidden, kernel = zip(*gradients, strict=True)
    total = jax.tree.map(lambda *x: sum(map(np.asarray, x)), *sums)
    pairs = [(np.concatenate(hidden), expected[0]), (sum(map(np.asarray, kernel)), expected[1])]
    for found, right in [*pairs, *zip(total, expected_sums, strict=True)]:
        assert relative(found, np.asarray(right, np.float64)) <= 1e-6


# Compiled programs


def test_logits_are_made_once_and_evaluation_makes_no_gradient() -> None:
    inputs = programs.arrays()
    forward = jax.jit(programs.chunked).lower(*inputs).as_text()
    both = jax.jit(jax.value_and_grad(programs.chunked, argnums=(0, 1))).lower(*inputs).as_text()
    assert forward.count("stablehlo.dot_general") == 1
    assert both.count("stablehlo.dot_general") == 3  # logits, gradient of hidden, gradient of the kernel


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_buffer_of_all_logits_on_one_device(dtype: str) -> None:
    all_logits = programs.B * programs.L * programs.V
    hlo = programs.compiled(programs.chunked, programs.arrays(dtype)).as_text()
    assert programs.largest_buffer(hlo) <= all_logits // 4
    # The check can fail: a loss that makes all logits is found out.
    naive = programs.compiled(programs.naive, programs.arrays(dtype)).as_text()
    assert programs.largest_buffer(naive) >= all_logits


@pytest.fixture(scope="module")
def on_meshes() -> dict[str, Any]:
    """What `loss_programs` prints for 8 virtual devices."""
    command = [sys.executable, str(ROOT / "tests" / "loss_programs.py"), *MESHES]
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert [found[mesh]["devices"] for mesh in MESHES] == [8] * len(MESHES)
    return found


def test_no_buffer_of_all_logits_on_eight_devices(on_meshes: dict[str, Any]) -> None:
    """A device's share of all logits counts, not only the whole."""
    share = programs.B * programs.L * programs.V // 8
    first = on_meshes[MESHES[0]]
    for found in (first["float32"], first["bfloat16"], on_meshes[MESHES[1]]["float32"]):
        assert found["largest_buffer"] <= share // 2
    assert first["naive"]["largest_buffer"] >= share


def test_chunks_send_neither_logits_nor_kernel_gradients(on_meshes: dict[str, Any]) -> None:
    """In the loop over chunks only statistics [B, chunk] and gradients of hidden [B, chunk, D] go between devices."""
    split_all_ways, rows_only = (on_meshes[mesh] for mesh in MESHES)
    hidden_chunk = programs.B // 4 * programs.CHUNK * programs.D
    for dtype in ("float32", "bfloat16"):
        assert split_all_ways[dtype]["sent_in_loop"] == hidden_chunk
        assert split_all_ways[dtype]["sent_once"] == programs.D * programs.V // 2
    assert rows_only["float32"]["sent_in_loop"] == 0
    # The check sees gathered logits, and a kernel gradient that is added up over devices in each chunk.
    assert split_all_ways["gathered"]["sent_in_loop"] > 2 * hidden_chunk
    assert split_all_ways["reduced_per_chunk"]["sent_in_loop"] == programs.D * programs.V // 2


def test_eight_devices_equal_one(on_meshes: dict[str, Any]) -> None:
    value, gradients = programs.compiled(programs.chunked, programs.arrays())(*programs.arrays())
    for mesh in MESHES:
        assert on_meshes[mesh]["value"] == pytest.approx(float(value), rel=1e-6)
        for found, expected in zip(on_meshes[mesh]["gradients"], gradients, strict=True):
            assert relative(found, np.asarray(expected, np.float64)) <= 2e-6


# The benchmark


def test_the_benchmark_prints_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--batch_size=2", "--seq_length=64", "--embed_dim=8", "--vocab_size=512", "--chunk=4", "--rounds=1"]
    benchmark.main(["loss", *sizes])
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    for part in ("forward", "forward_backward"):
        assert result[part]["times_less_memory"] > 2
        assert result[part]["chunked_ms"] > 0
    with pytest.raises(UserError, match="--chunk must be at least 1"):
        benchmark.main(["loss", "--chunk=0"])
