"""What custom kernels compute, by formula: the program's text shows what goes in and comes out, not what is done."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass

from hephaestus_jax.compile_check.costs import kernel_name
from hephaestus_jax.compile_check.hlo import Array, Instruction

# Products of [queries, head] with [head, keys], or as large, in each of the splash attention kernels: scores and their
# sum over values forward; scores, gradient of the shares, and one or two gradients backward. The kernel for dk and dv
# gives dq too where the two are fused.
_SPLASH = re.compile(r"splash_m[hq]a_(fwd|dq|dkv)\w*")
_PRODUCTS = {"fwd": 2, "dq": 3, "dkv": 4}
_FUSED_DKV = 5


_DEFAULT_BLOCK = 512

# MegaBlocks' products of rows with the matrix of their group: rows [R, K] and matrices give [R, N] (gmm), rows of both
# sides give [groups, K, N] (tgmm).
_GROUPED = re.compile(r"(?:^|\W)t?gmm(?:\W|$)")


@dataclass(frozen=True)
class KernelFormulas:
    """FLOPs of the kernels of one model's train step.

    Attributes:
        head_dim: H.
        windows: tokens that a query sees, 0 for all, in each layer of the pattern. A kernel's text does not say which
            layer it is of; each counts as their mean, so that those of a whole pattern add up to what it computes.
    """

    head_dim: int
    windows: tuple[int, ...] = (0,)

    def __call__(self, kernel: Instruction, operands: tuple[Array, ...]) -> float | None:
        """FLOPs of one run of a kernel on its operands; None for one that is not known."""
        if _GROUPED.search(kernel.op_name) or _GROUPED.search(kernel_name(kernel)):
            return _grouped(kernel, operands)
        return self.splash(kernel, operands)

    def splash(self, kernel: Instruction, operands: tuple[Array, ...]) -> float | None:
        """Of a splash attention kernel; None for another."""
        found = _SPLASH.search(kernel_name(kernel)) or _SPLASH.search(kernel.op_name)
        wide = [array for array in operands if array.shape[-1:] == (self.head_dim,) and len(array.shape) >= 3]
        if not found or len(wide) < 2:
            return None
        queries, keys = wide[0].shape, wide[1].shape  # [rows..., heads, length, head_dim]
        phase = found[1]
        # Fused, a result more: the queries' gradient in parts, one for each block of keys.
        fused = any(array.shape[-3:] == queries[-3:] and len(array.shape) > len(queries) for array in kernel.arrays)
        products = _FUSED_DKV if phase == "dkv" and fused else _PRODUCTS[phase]
        suffix = "" if phase == "fwd" else f"_{phase}"
        blocks = [_stated(kernel, f"block_{side}{suffix}") or _DEFAULT_BLOCK for side in ("q", "kv")]
        heads, length = math.prod(queries[:-2]), queries[-2]
        scores = length * keys[-2] * self.visible(keys[-2], *blocks)
        return 2.0 * products * heads * self.head_dim * scores

    def visible(self, length: int, query_block: int, key_block: int) -> float:
        """Share of the blocks of a row's scores in which a query sees a key; the others are not computed.

        Queries that are a part of the row (context parallelism) are taken from both ends of it, so that on average
        they see as many blocks as those of the whole row.
        """
        query_block, key_block = min(query_block, length), min(key_block, length)
        seen = 0
        for window, first in itertools.product(self.windows, range(0, length, query_block)):
            last = min(first + query_block, length) - 1
            oldest = max(0, first - window + 1) if window else 0
            seen += last // key_block - oldest // key_block + 1
        return seen / (len(self.windows) * -(-length // query_block) * -(-length // key_block))


def _grouped(kernel: Instruction, operands: tuple[Array, ...]) -> float | None:
    """Every row with one matrix, once: 2·R·K·N, whatever the groups' sizes."""
    rows = [array for array in operands if len(array.shape) == 2 and array.dtype in ("bf16", "f32")]
    if not rows or not kernel.arrays:
        return None
    return 2.0 * rows[0].size * kernel.arrays[0].shape[-1]


def _stated(kernel: Instruction, name: str) -> int:
    """A number of the kernel's metadata; 0 if it has none of that name."""
    found = re.search(rf"{name}\W+(\d+)", kernel.attributes)
    return int(found[1]) if found else 0
