"""A compile check in words, and as JSON."""

from __future__ import annotations

import dataclasses
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hephaestus_jax.compile_check.check import Check, gib
from hephaestus_jax.compile_check.roofline import ASSUMPTIONS

SHOWN_MOVES = 24


def in_words(found: Check) -> str:
    """All of it, a line for each figure."""
    return "\n".join([*_headline(found), *_memory(found), *(_costs(found) if found.memory else [])])


def _headline(found: Check) -> list[str]:
    config, chip = found.config, found.topology.generation
    compute = config.compute
    mesh = " × ".join(f"{axis} {size}" for axis, size in found.mesh.items() if size > 1) or "1 device"
    tokens = config.batch_size * found.length
    return [
        f"model {config.model.name}: {config.model.num_parameters:,} parameters; computed in {compute.dtype}, stored in"
        f" {compute.param_dtype}, {config.optimizer.kind} moments in {config.optimizer.moment_dtype}",
        f"step: {config.batch_size:,} rows of {found.length:,} tokens = {tokens:,} tokens,"
        f" {tokens // found.topology.chips:,} per chip; {config.microbatches} microbatch(es), attention"
        f" {compute.attention!r}, remat {compute.remat!r}",
        f"topology {found.topology}: {found.topology.chips:,} chips, each {gib(chip.hbm)} HBM,"
        f" {chip.peak_flops / 1e12:,.0f} TFLOP/s bfloat16, {chip.hbm_bandwidth / 1e9:,.0f} GB/s HBM,"
        f" {chip.link_bandwidth / 1e9:,.0f} GB/s per link and direction; mesh {mesh}",
        f"compiled in {found.compile_seconds:.1f} s, traced in {found.trace_seconds:.1f} s; {versions()}",
    ]


def _memory(found: Check) -> list[str]:
    limit = found.topology.generation.hbm
    if found.memory is None:
        return [
            f"HBM per chip: does not fit: the compiler needs {gib(found.needed)} of {gib(limit)}",
            f"  it says: {found.said}",
        ]
    memory = found.memory
    verdict = "fits" if found.fits else "DOES NOT FIT"
    return [
        f"HBM per chip: {gib(memory.total)} of {gib(limit)} ({100 * memory.total / limit:.0f} %), {verdict}: arguments"
        f" {gib(memory.arguments)}, outputs that reuse no argument {gib(memory.outputs)}, temporaries"
        f" {gib(memory.temporaries)}, code {gib(memory.code)}"
    ]


def _costs(found: Check) -> list[str]:
    costs, times = found.costs, found.roofline
    assert times is not None
    lines = [
        f"FLOPs per chip and step: {costs.flops:.4g} in matrix products, {costs.kernel_flops:.4g} of them in custom"
        f" kernels by formula; useful {found.useful_flops:.4g}; ratio {found.flops_ratio:.3f}",
        f"  check: every loop counted once {found.once_flops:.4g} without kernels, the compiler's own count"
        f" {found.compiler_flops:.4g} with sums and activations",
    ]
    lines += [f"  not counted: kernel {name}, {count} time(s)" for name, count in sorted(costs.uncounted.items())]
    if costs.unknown_loops:
        lines.append(f"  counted once: {costs.unknown_loops} loop(s) whose trip count depends on data")
    lines += _collectives(found)
    lines += [
        f"roofline: {times.step:.3f} s a step, bound by {times.bound} (compute {times.compute:.3f} s, memory"
        f" {times.memory:.3f} s for {gib(costs.hbm_bytes)}, interconnect {times.interconnect:.3f} s); MFU"
        f" {100 * times.mfu:.1f} % at the most,"
        f" {found.config.batch_size * found.length / times.step / found.topology.chips:,.0f} tokens/s per chip",
        f"  assumes {ASSUMPTIONS}",
    ]
    return lines


def _collectives(found: Check) -> list[str]:
    total = sum(move.sent for move in found.moves)
    lines = [f"collectives per chip and step: {gib(total)} sent in {sum(move.count for move in found.moves):,}"]
    for kind in sorted({move.kind for move in found.moves}):
        of_kind = [move for move in found.moves if move.kind == kind]
        lines.append(
            f"  {kind}: {sum(move.count for move in of_kind):,}, {gib(sum(move.payload for move in of_kind))} of"
            f" arrays, {gib(sum(move.sent for move in of_kind))} sent"
        )
    lines.append("  of these, by what they move:")
    for move in found.moves[:SHOWN_MOVES]:
        lines.append(
            f"    {move.kind} over {' × '.join(move.axes)}: {move.what}; {move.shape} × {move.count:,},"
            f" {_size(move.payload)}, {_size(move.sent)} sent ({move.origin})"
        )
    if rest := found.moves[SHOWN_MOVES:]:
        lines.append(f"    and {len(rest)} more, {_size(sum(move.sent for move in rest))} sent")
    return lines


def _size(count: float) -> str:
    return gib(count) if count >= 1 << 27 else f"{count / (1 << 20):.2f} MiB"


def as_json(found: Check) -> dict[str, Any]:
    """The same figures: bytes, seconds and FLOPs, of one chip and one step."""
    memory = dataclasses.asdict(found.memory) | {"total": found.memory.total} if found.memory else None
    times = found.roofline
    return {
        "model": found.config.model.name,
        "parameters": found.config.model.num_parameters,
        "topology": str(found.topology),
        "chips": found.topology.chips,
        "mesh": found.mesh,
        "remat": found.config.compute.remat,
        "attention": found.config.compute.attention,
        "rows": found.config.batch_size,
        "length": found.length,
        "microbatches": found.config.microbatches,
        "fits": found.fits,
        "hbm_bytes": found.topology.generation.hbm,
        "memory_bytes": memory,
        "needed_bytes": found.total,
        "compiler_said": found.said,
        "flops": found.costs.flops,
        "kernel_flops": found.costs.kernel_flops,
        "useful_flops": found.useful_flops,
        "flops_ratio": found.flops_ratio if found.memory else None,
        "once_flops": found.once_flops,
        "compiler_flops": found.compiler_flops,
        "uncounted_kernels": dict(found.costs.uncounted),
        "unknown_loops": found.costs.unknown_loops,
        "collectives": [dataclasses.asdict(move) for move in found.moves],
        "roofline_seconds": {
            "compute": times.compute, "memory": times.memory, "interconnect": times.interconnect, "step": times.step,
        } if times else None,
        "roofline_mfu": times.mfu if times else None,
        "trace_seconds": found.trace_seconds,
        "compile_seconds": found.compile_seconds,
        "versions": versions(),
    }  # fmt: skip


def versions() -> str:
    """Of what compiled, in words."""
    words = []
    for package in ("jax", "libtpu"):
        try:
            words.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            words.append(f"{package} not installed")
    return ", ".join(words)
