"""Reading programs' text: what TPU compilers write that CPU ones do not."""

from __future__ import annotations

import pytest

from hephaestus_jax.compile_check.costs import walk
from hephaestus_jax.compile_check.groups import groups_of
from hephaestus_jax.compile_check.hlo import Array, Instruction, parse, trip_count
from hephaestus_jax.compile_check.kernels import KernelFormulas

LOOP = """HloModule m, is_scheduled=true, num_partitions=4

%inside (p0: bf16[8,16], p1: bf16[16,32]) -> bf16[8,32] {{
  %p0 = bf16[8,16]{{1,0:T(8,128)(2,1)S(1)}} parameter(0)
  %p1 = bf16[16,32]{{1,0:T(8,128)(2,1)}} parameter(1)
  ROOT %c = bf16[8,32]{{1,0:T(8,128)(2,1)}} convolution(%p0, %p1), dim_labels=bf_io->bf
}}

%body (state: (u32[], bf16[8,16], bf16[16,32])) -> (u32[], bf16[8,16], bf16[16,32]) {{
  %state = (u32[]{{:T(128)}}, bf16[8,16]{{1,0:T(8,128)(2,1)}}, /*index=2*/bf16[16,32]{{1,0}}) parameter(0)
  %i = u32[]{{:T(128)}} get-tuple-element(%state), index=0
  %x = bf16[8,16]{{1,0}} get-tuple-element(%state), index=1
  %w = bf16[16,32]{{1,0}} get-tuple-element(%state), index=2
  %f = bf16[8,32]{{1,0}} fusion(%x, %w), kind=kOutput, calls=%inside
  %two = u32[]{{:T(128)}} constant({step})
  %next = u32[]{{:T(128)}} {change}(%i, %two)
  ROOT %out = (u32[], bf16[8,16], bf16[16,32]) tuple(%next, %x, %w)
}}

%condition (state.1: (u32[], bf16[8,16], bf16[16,32])) -> pred[] {{
  %limit = u32[]{{:T(128)}} constant({limit})
  %state.1 = (u32[]{{:T(128)}}, bf16[8,16]{{1,0}}, bf16[16,32]{{1,0}}) parameter(0)
  %i.1 = u32[]{{:T(128)}} get-tuple-element(%state.1), index=0
  ROOT %less = pred[]{{:T(512)}} compare({sides}), direction={direction}
}}

ENTRY %main (a: bf16[8,16], b: bf16[16,32]) -> (u32[], bf16[8,16], bf16[16,32]) {{
  %a = bf16[8,16]{{1,0}} parameter(0)
  %b = bf16[16,32]{{1,0}} parameter(1)
  %zero = u32[]{{:T(128)}} constant({start})
  %copied = u32[]{{:T(128)}} copy(%zero)
  %begin = (u32[], bf16[8,16], bf16[16,32]) tuple(%copied, %a, %b)
  ROOT %loop = (u32[], bf16[8,16], bf16[16,32]) while(%begin), condition=%condition, body=%body
}}
"""


def loop(start: int, limit: int, step: int, direction: str, change: str = "add", flip: bool = False) -> str:
    sides = "%limit, %i.1" if flip else "%i.1, %limit"
    return LOOP.format(start=start, limit=limit, step=step, direction=direction, change=change, sides=sides)


@pytest.mark.parametrize(
    ("text", "trips"),
    [
        (loop(0, 8, 1, "LT"), 8),
        (loop(0, 8, 3, "LT"), 3),
        (loop(2, 8, 2, "LE"), 4),
        (loop(0, 8, 1, "GT", flip=True), 8),
        (loop(8, 0, 1, "GT", change="subtract"), 8),
        (loop(0, 8, 2, "NE"), 4),
        (loop(9, 8, 1, "LT"), 0),
        (loop(0, 9, 2, "NE"), None),  # never ends by that count
        (loop(0, 8, 0, "LT"), None),
    ],
)
def test_trips_are_told_from_the_counter(text: str, trips: int | None) -> None:
    module = parse(text)
    main = module.computations[module.entry]
    assert trip_count(module, main, main.root) == trips


def test_what_a_loop_computes_counts_as_often_as_it_runs() -> None:
    costs = walk(parse(loop(0, 8, 1, "LT")))
    assert costs.flops == 8 * 2 * 8 * 16 * 32
    assert walk(parse(loop(0, 8, 1, "LT")), loops=False).flops == 2 * 8 * 16 * 32


def test_layouts_and_memory_spaces_are_read() -> None:
    module = parse(loop(0, 8, 1, "LT"))
    p0, p1 = module.computations["inside"].parameters[0], module.computations["inside"].parameters[1]
    assert p0.arrays == (Array("bf16", (8, 16), 1),)
    assert p1.arrays == (Array("bf16", (16, 32), 0),)
    assert p1.arrays[0].bytes == 16 * 32 * 2
    assert module.partitions == 4


ASYNCHRONOUS = """HloModule m, num_partitions=4

%start (p: bf16[2,8]) -> (bf16[2,8], bf16[8,8]) {
  %p = bf16[2,8]{1,0} parameter(0)
  %g1 = bf16[8,8]{1,0} all-gather(%p), channel_id=7, replica_groups=mesh['a'=4] {'a'}, dimensions={0}
  ROOT %s = (bf16[2,8]{1,0}, bf16[8,8]{1,0}) custom-call(%g1), custom_call_target="AsyncCollectiveStart"
}, execution_thread="sparsecore"

%middle (q: bf16[2,8], r: bf16[8,8]) -> bf16[8,8] {
  %q = bf16[2,8]{1,0} parameter(0)
  %r = bf16[8,8]{1,0} parameter(1)
  %g2 = bf16[8,8]{1,0} all-gather(%q), channel_id=7, replica_groups=mesh['a'=4] {'a'}, dimensions={0}
  ROOT %d = bf16[8,8]{1,0} custom-call(%q, %r, %g2), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.1 (t: f32[8,8]) -> f32[2,8] {
  %t = f32[8,8]{1,0} parameter(0)
  %sum = f32[8,8]{1,0} all-reduce(%t), channel_id=9, replica_groups={{0,1},{2,3}}, to_apply=%add
  %zero = s32[] constant(0)
  ROOT %cut = f32[2,8]{1,0} dynamic-slice(%sum, %zero, %zero), dynamic_slice_sizes={2,8}
}

ENTRY %main (a: bf16[2,8], b: f32[8,8]) -> f32[2,8] {
  %a = bf16[2,8]{1,0} parameter(0)
  %b = f32[8,8]{1,0} parameter(1)
  %f1 = (bf16[2,8]{1,0}, bf16[8,8]{1,0}) fusion(%a), kind=kCustom, calls=%start
  %x = bf16[8,8]{1,0} get-tuple-element(%f1), index=1
  %f2 = bf16[8,8]{1,0} fusion(%a, %x), kind=kCustom, calls=%middle
  ROOT %f3 = f32[2,8]{1,0} fusion(%b), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_a_collective_behind_other_work_counts_once() -> None:
    """It is written into every kernel that it runs behind, with the same channel."""
    gathers = [x for x in walk(parse(ASYNCHRONOUS)).collectives if x.kind == "all-gather"]
    assert [(x.times, x.payload) for x in gathers] == [(1, 8 * 8 * 2)]


def test_a_sum_of_which_only_a_slice_is_kept_is_a_reduce_scatter() -> None:
    (scatter,) = [x for x in walk(parse(ASYNCHRONOUS)).collectives if x.kind != "all-gather"]
    assert (scatter.kind, scatter.payload, scatter.sent) == ("reduce-scatter", 8 * 8 * 4, 8 * 8 * 4 / 2)
    assert scatter.groups.axes({"data": 2, "tensor": 2}) == ("tensor",)


SLICES = """HloModule m, num_partitions=2

ENTRY %main (g: f32[2,1024]) -> f32[16,128] {
  %g = f32[2,1024]{1,0} parameter(0)
  %tiles = f32[16,128]{1,0} bitcast(%g)
  %token = token[] after-all()
  %send = (f32[16,128]{1,0}, u32[], token[]) send(%tiles, %token), channel_id=2, is_host_transfer=true, \
frontend_attributes={_xla_megascale_target="{1:2,4}x{0:1}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %sent = token[] send-done(%send), channel_id=2, is_host_transfer=true
  %recv = (f32[16,128]{1,0}, u32[], token[]) recv(%token), channel_id=1, is_host_transfer=true, \
frontend_attributes={_xla_megascale_target="{1:2,4}x{0:1}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %got = (f32[16,128]{1,0}, token[]) recv-done(%recv), channel_id=1, is_host_transfer=true
  ROOT %sum = f32[16,128]{1,0} get-tuple-element(%got), index=0
}
"""


def test_a_sum_over_slices_is_a_transfer_to_the_host() -> None:
    (x,) = walk(parse(SLICES)).collectives
    assert (x.kind, x.times, x.payload) == ("all-reduce", 1, 2 * 1024 * 4)
    assert x.arrays[0].shape == (2, 1024)  # that of the parameter, not of its tiles
    assert x.groups.members == ((0, 2, 4), (1, 3, 5))
    assert x.groups.axes({"data": 3, "fsdp": 2}) == ("data",)
    assert x.sent == pytest.approx(2 * 2 / 3 * 2 * 1024 * 4)


@pytest.mark.parametrize(
    ("attributes", "members"),
    [
        ("replica_groups={{0,2},{1,3}}, to_apply=%x", ((0, 2), (1, 3))),
        ("replica_groups=[2,2]<=[4], dimensions={0}", ((0, 1), (2, 3))),
        ("replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}, dimensions={0}", ((0, 1), (2, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}, dimensions={0}", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=4] {'a':(1)2}, dimensions={0}", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=4] {'a':(2)2}, dimensions={0}", ((0, 1), (2, 3))),
        ("replica_groups={}, to_apply=%x", ((0, 1, 2, 3),)),
        ("source_target_pairs={{0,1},{1,0},{2,3},{3,2}}, metadata={}", ((0, 1), (2, 3))),
    ],
)
def test_groups(attributes: str, members: tuple[tuple[int, ...], ...]) -> None:
    x = Instruction("x", "all-reduce", (), (), "", f"channel_id=1, {attributes}", False)
    assert groups_of(x, 4).members == members


def kernel(name: str, metadata: str = "", results: tuple[Array, ...] = ()) -> Instruction:
    attributes = f'custom_call_target="tpu_custom_call", {metadata} metadata={{op_name="jit(step)/{name}"}}'
    return Instruction("k", "custom-call", results, (), "", attributes, False)


Q, KV = Array("bf16", (4, 1024, 64)), Array("bf16", (2, 1024, 64))


@pytest.mark.parametrize(
    ("name", "products"),
    [
        ("splash_mha_fwd_segmented_residuals", 2),
        ("splash_mha_dq_segmented_no_residuals", 3),
        ("splash_mha_dkv_segmented_no_residuals", 4),
        ("splash_mqa_fwd_no_residuals", 2),
    ],
)
def test_splash_kernels_by_formula(name: str, products: int) -> None:
    """Of 2 × 2 blocks of 512 the mask leaves three."""
    flops = KernelFormulas(head_dim=64)(kernel(name), (Q, KV, KV))
    assert flops == products * 2 * 4 * 1024 * 1024 * 64 * 3 / 4


def test_splash_blocks_are_those_of_the_kernel() -> None:
    metadata = '"{\\"block_q\\": 256, \\"block_kv\\": 128}"'
    assert KernelFormulas(64)(kernel("splash_mha_fwd", metadata), (Q, KV, KV)) == (
        2 * 2 * 4 * 1024 * 1024 * 64 * (2 + 4 + 6 + 8) / 32
    )


def test_a_backward_kernel_that_also_gives_the_queries_gradient_in_parts() -> None:
    metadata = '"{\\"block_q_dkv\\": 512, \\"block_kv_dkv\\": 1024, \\"block_kv_dkv_compute\\": 512}"'
    gradients = (Array("bf16", (1, 4, 1024, 64)), KV, KV)
    flops = KernelFormulas(64)(kernel("splash_mha_dkv_segmented_no_residuals", metadata, gradients), (Q, KV, KV))
    assert flops == 5 * 2 * 4 * 1024 * 1024 * 64  # the one block of keys meets both of queries


def test_a_window_leaves_fewer_blocks() -> None:
    assert KernelFormulas(64).visible(4096, 512, 512) == sum(range(1, 9)) / 64
    assert KernelFormulas(64, (512,)).visible(4096, 512, 512) == (1 + 7 * 2) / 64
    assert KernelFormulas(64, (1,)).visible(4096, 512, 512) == 8 / 64
    assert KernelFormulas(64, (0, 512, 512)).visible(4096, 512, 512) == pytest.approx((36 + 2 * 15) / 64 / 3)


@pytest.mark.parametrize(("name", "out"), [("jit(gmm)/kernel", (300, 48)), ("vmap(jit(tgmm))/kernel", (4, 32, 48))])
def test_products_by_group_take_every_row_once(name: str, out: tuple[int, ...]) -> None:
    x = Instruction("k", "custom-call", (Array("f32", out),), (), "", f'metadata={{op_name="jit(step)/{name}"}}', False)
    operands = (Array("s32", (5,)), Array("bf16", (300, 32)), Array("bf16", (4, 32, 48)))
    assert KernelFormulas(64)(x, operands) == 2 * 300 * 32 * 48


def test_an_unknown_kernel_is_listed() -> None:
    text = """HloModule m

ENTRY %main (a: f32[8,8]) -> f32[8,8] {
  %a = f32[8,8]{1,0} parameter(0)
  ROOT %k = f32[8,8]{1,0} custom-call(%a), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"more":"lines"
}}, metadata={op_name="jit(f)/my_kernel"}
}
"""
    costs = walk(parse(text), KernelFormulas(64))
    assert costs.uncounted == {"my_kernel": 1}
    assert costs.flops == 0
