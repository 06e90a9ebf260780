"""The table and what follows from it. What the devices compute with it is in tests/parallel/test_meshes.py."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from hephaestus_jax.config import ExpertsConfig, MeshConfig, ModelConfig, OptimizerConfig, TrainConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.model.decoder import abstract_parameters, parameter_axes
from hephaestus_jax.sharding import MESH_AXES, TABLE, Partitioning, Rule, arrange_slices, constrain, make_mesh
from hephaestus_jax.train_step import fresh_state

MODEL = ModelConfig("small", 256, 128, 384, num_layers=2, num_heads=8, num_kv_heads=4, head_dim=32)
AXES = parameter_axes(MODEL)
Array = jax.ShapeDtypeStruct
SMALL = 64  # bytes: only scalars and other numbers per layer are smaller


def mesh(data=1, fsdp=1, tensor=1, expert=1, context=1):
    """A mesh without devices, for what needs none."""
    return AbstractMesh((data, fsdp, expert, context, tensor), MESH_AXES, axis_types=(AxisType.Auto,) * 5)


def partitioning(data=1, fsdp=1, tensor=1, table=TABLE, expert=1, context=1, **model):
    return Partitioning(mesh(data, fsdp, tensor, expert, context), dataclasses.replace(MODEL, **model), table)


@functools.cache
def state_of(optimizer="adamw", model=MODEL):
    config = TrainConfig("unused", "unused", model, 1000, 8, optimizer=OptimizerConfig(optimizer))
    return jax.eval_shape(lambda params: fresh_state(config, params), abstract_parameters(model))


def by_path(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


# The mesh


@pytest.mark.parametrize(
    "config, count, message",
    [
        (MeshConfig(3, 1), 8, "does not divide 8 devices"),
        (MeshConfig(3, -1), 8, "does not divide 8 devices"),
        (MeshConfig(2, 2), 8, "covers 4 of 8 devices; set one of the sizes to -1"),
        (MeshConfig(2, 2, tensor=4), 8, "does not divide 8 devices"),
        (MeshConfig(1, 1, 2, 3, 1), 8, "does not divide 8 devices"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(config, count, message):
    with pytest.raises(UserError, match=message):
        make_mesh(config, [object()] * count)


def test_one_device_is_a_mesh():
    made = make_mesh(MeshConfig(), jax.devices()[:1])
    assert dict(made.shape) == {"data": 1, "fsdp": 1, "expert": 1, "context": 1, "tensor": 1}
    assert set(made.axis_types) == {AxisType.Auto}


class Device:
    """What `make_mesh` looks at of a device; its id counts over all slices, processes or both."""

    device_kind = "cpu"

    def __init__(self, id, process=0, platform="cpu", **slice_index):
        self.id, self.process_index, self.platform = id, process, platform
        self.__dict__.update(slice_index)


def on_slices(count, each, platform="cpu"):
    return [Device(id, id // 2, platform, slice_index=id // each) for id in range(count * each)]


def ids(config, slices, devices):
    return np.vectorize(lambda device: device.id)(arrange_slices(config.axes, slices, devices))


def test_slices_are_the_outermost_part_of_data_then_of_fsdp():
    config = MeshConfig(data=2, fsdp=2, tensor=2, slices=2)
    devices = on_slices(2, 4)
    assert ids(config, 2, devices[4:] + devices[:4]).tolist() == np.arange(8).reshape(2, 2, 1, 1, 2).tolist()
    # data=2 over 4 slices: two of them to a replica, which fsdp joins; within a slice `tensor` varies fastest
    both = ids(MeshConfig(data=2, fsdp=4, context=2, slices=4), 4, on_slices(4, 4))
    assert both.shape == (2, 4, 1, 2, 1)
    slices = both // 4
    assert (slices == np.array([[0, 0, 1, 1], [2, 2, 3, 3]])[:, :, None, None, None]).all()
    # a replica within a slice: data takes both slices and more
    assert (ids(MeshConfig(data=4, fsdp=2, slices=2), 2, on_slices(2, 4)) == np.arange(8).reshape(4, 2, 1, 1, 1)).all()


def test_processes_are_slices_where_devices_know_of_none():
    devices = [Device(id, process=id // 4) for id in range(8)]
    assert ids(MeshConfig(data=2, fsdp=4, slices=2), 2, devices).ravel().tolist() == list(range(8))


@pytest.mark.parametrize(
    "config, devices, message",
    [
        (MeshConfig(fsdp=8), on_slices(2, 4, "tpu"), "the devices lie on 2 slices; set MeshConfig.slices to 2"),
        (MeshConfig(fsdp=8, slices=4), on_slices(2, 4), "is 4, and the devices lie on 2 slices; set it to 2"),
        (MeshConfig(fsdp=8, slices=2), [Device(id) for id in range(8)], "lie on 1 processes; set it to 1"),
        (
            MeshConfig(fsdp=1, tensor=8, slices=2), on_slices(2, 4),
            "data=1 × fsdp=1 does not divide over 2 slices; choose data, or data and fsdp together, as a multiple",
        ),
    ],
)  # fmt: skip
def test_a_mesh_that_does_not_fit_the_slices_is_refused(config, devices, message):
    with pytest.raises(UserError, match=message):
        make_mesh(config, devices)


# The table


SPREAD = ("fsdp", "expert", "context")  # what `embed` is divided over


def specs_of(tree):
    return {name: tuple(sharding.spec) for name, sharding in by_path(tree).items()}


def test_parameters_are_split_as_the_table_says():
    assert specs_of(partitioning(2, 2, 2).tree(AXES)) == {
        "embedder/embedding": ("tensor", SPREAD),
        "final_norm/scale": (None,),
        "head/kernel": (SPREAD, "tensor"),
        "layers/attention_norm/scale": (None, None),
        "layers/attention/query/kernel": (None, SPREAD, "tensor", None),
        "layers/attention/key/kernel": (None, SPREAD, "tensor", None),
        "layers/attention/value/kernel": (None, SPREAD, "tensor", None),
        "layers/attention/out/kernel": (None, "tensor", None, SPREAD),
        "layers/mlp_norm/scale": (None, None),
        "layers/mlp/gate/kernel": (None, SPREAD, "tensor"),
        "layers/mlp/up/kernel": (None, SPREAD, "tensor"),
        "layers/mlp/down/kernel": (None, "tensor", SPREAD),
    }


EXPERTS = ExpertsConfig(num_experts=8, experts_per_token=2, mlp_dim=64)


def test_experts_are_split_over_their_axis_and_the_rest_of_them_over_the_others():
    specs = specs_of(partitioning(expert=2, experts=EXPERTS).tree(parameter_axes(MODEL_WITH_EXPERTS)))
    assert {name: spec for name, spec in specs.items() if "experts" in name} == {
        "layers/experts/router/kernel": (None, SPREAD, None),
        "layers/experts/gate/kernel": (None, "expert", ("fsdp", "context"), "tensor"),
        "layers/experts/up/kernel": (None, "expert", ("fsdp", "context"), "tensor"),
        "layers/experts/down/kernel": (None, "expert", "tensor", ("fsdp", "context")),
    }
    assert not any("mlp/" in name for name in specs)


MODEL_WITH_EXPERTS = dataclasses.replace(MODEL, experts=EXPERTS)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_biases_and_norms_of_heads_are_split_by_heads_and_else_whole_on_purpose(optimizer):
    model = dataclasses.replace(MODEL, qkv_bias=True, query_key_norm="all", norm_placement="both")
    axes, here = parameter_axes(model), partitioning(2, 2, 8, qkv_bias=True)
    specs = specs_of(here.tree(axes))
    assert specs["layers/attention/query/bias"] == specs["layers/attention/query_norm/scale"] == (None, "tensor", None)
    assert specs["layers/attention/value/bias"] == specs["layers/attention/key_norm/scale"] == (None, None, None)
    here.check(state_of(optimizer, model), axes, large_bytes=SMALL)
    assert "  head_vector (32): whole" in here.describe()


def test_rows_are_split_over_data_fsdp_and_expert_and_come_whole():
    here = partitioning(2, 4, expert=2, context=2)
    assert here.batch.spec == PartitionSpec(("data", "fsdp", "expert"), None)
    assert (here.row_shards, here.context) == (16, 2)
    assert here.batch.shard_shape((32, 6)) == (2, 6)
    assert here.sharding(("batch", "length")).shard_shape((32, 6)) == (2, 3)


@pytest.mark.parametrize(
    "axis, field, size, mesh_axes, mend",
    [
        ("vocabulary", "vocab_size", 16385, "tensor=2", "pad ModelConfig.vocab_size to 16386, a multiple of 2"),
        ("embed", "embed_dim", 129, "fsdp=2", "product divides ModelConfig.embed_dim"),
        ("mlp", "mlp_dim", 383, "tensor=2", "choose tensor so that it divides ModelConfig.mlp_dim"),
    ],
)
def test_a_size_that_does_not_divide_is_an_error_with_its_mend(axis, field, size, mesh_axes, mend):
    with pytest.raises(UserError) as error:
        partitioning(2, 2, 2, **{field: size})
    assert f"{axis} of {size} does not divide over mesh axes {mesh_axes}" in str(error.value)
    assert str(error.value).endswith(mend)
    partitioning(2, 1, 1, **{field: size})  # a mesh axis of 1 divides everything


def test_heads_must_divide():
    with pytest.raises(UserError, match=r"heads of 6 does not divide over mesh axes tensor=4"):
        partitioning(tensor=4, num_heads=6, num_kv_heads=2)


def test_fewer_kv_heads_than_tensor_are_whole_and_said_to_be():
    here = partitioning(1, 2, 8)
    assert here.spec(("embed", "kv_heads", "head_dim")) == PartitionSpec(SPREAD, None, None)
    assert here.spec(("embed", "heads", "head_dim")) == PartitionSpec(SPREAD, "tensor", None)
    assert "  kv_heads (4): whole: fewer than the 8 devices of tensor" in here.describe()
    here.check(state_of(), AXES, large_bytes=SMALL)  # nothing else is


def test_the_description_says_what_is_split_and_what_is_whole():
    lines = partitioning(2, 4, 2).describe()
    assert lines[0] == "mesh data=2 × fsdp=4 × expert=1 × context=1 × tensor=2"
    named = [line.split(" (")[0].split(":")[0].strip() for line in lines[1:]]
    absent = ("experts", "expert_embed", "expert_mlp", "router", "head_vector", "lora_rank")
    assert named == [name for name in TABLE if name not in absent]
    assert "  embed (128): split over fsdp: 32 on each of 4, whole over data" in lines
    assert "  heads (8): split over tensor: 4 on each of 2" in lines
    assert "  batch: split over data × fsdp" in lines
    assert "  norm (128): whole" in lines


def test_more_kv_heads_than_tensor_must_divide():
    with pytest.raises(UserError, match=r"kv_heads of 6 does not divide over mesh axes tensor=4; choose tensor"):
        partitioning(tensor=4, num_heads=12, num_kv_heads=6)


def test_an_unknown_logical_axis_is_refused():
    with pytest.raises(ValueError, match="'sequence' is not in the table"):
        partitioning().sharding(("batch", "sequence"))


# The training state


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_moments_lie_like_their_parameter(optimizer):
    here, state = partitioning(2, 2, 2), state_of(optimizer)
    shardings = here.state(state, AXES)
    params = by_path(shardings.params)
    assert params == by_path(here.tree(AXES))
    found = 0
    for path, sharding in by_path(shardings.opt_state).items():
        name = next((name for name in params if path.endswith(name)), None)
        if name and by_path(state.opt_state)[path].shape == by_path(state.params)[name].shape:
            assert sharding == params[name], path
            found += 1
    assert found == {"adamw": 24, "muon": 17, "adafactor": 3}[optimizer]
    assert shardings.step.spec == PartitionSpec()
    here.check(state, AXES, large_bytes=SMALL)


def test_factored_moments_keep_the_axes_that_are_left():
    moments = {
        "embedder": {"embedding": Array((256,), jnp.float32)},
        "head": {"kernel": Array((128,), jnp.float32)},
        "layers": {
            "attention": {
                "query": {"kernel": Array((2, 8, 32), jnp.float32)},
                "key": {"kernel": Array((2, 128, 4), jnp.float32)},
                "out": {"kernel": Array((2, 1), jnp.float32)},  # what optax has in place of a moment
            },
            "mlp": {
                "gate": {"kernel": Array((2, 384), jnp.float32)},
                "down": {"kernel": Array((384, 128), jnp.float32)},
            },
        },
    }
    here = partitioning(2, 2, 2)
    specs = {path: tuple(s.spec) for path, s in by_path(here.state({"row": moments}, AXES)).items()}
    assert specs == {
        "row/embedder/embedding": ("tensor",),
        "row/head/kernel": (SPREAD,),
        "row/layers/attention/query/kernel": (None, "tensor", None),
        "row/layers/attention/key/kernel": (None, SPREAD, "tensor"),
        "row/layers/attention/out/kernel": (),
        "row/layers/mlp/gate/kernel": (None, "tensor"),
        "row/layers/mlp/down/kernel": ("tensor", SPREAD),
    }
    here.check({"row": moments}, AXES, large_bytes=SMALL)


def test_equal_dimensions_are_read_as_the_ones_that_are_split_further():
    square = dataclasses.replace(MODEL, mlp_dim=128)
    here = Partitioning(mesh(1, 1, 4), square)
    moment = {"layers": {"mlp": {"up": {"kernel": Array((2, 128), jnp.float32)}}}}  # D gone, or F
    assert [tuple(s.spec) for s in jax.tree.leaves(here.state(moment, AXES))] == [(None, "tensor")]


@given(
    sizes=st.tuples(*[st.sampled_from([1, 2, 4])] * 5),
    kv_heads=st.sampled_from([1, 2, 4, 8]),
    tied=st.booleans(),
    experts=st.sampled_from([None, EXPERTS]),
    optimizer=st.sampled_from(["adamw", "muon", "adafactor"]),
)
@settings(max_examples=25, deadline=None)
def test_every_matrix_is_divided_over_every_axis_but_data(sizes, kv_heads, tied, experts, optimizer):
    model = dataclasses.replace(MODEL, num_kv_heads=kv_heads, tied_embeddings=tied, experts=experts)
    here, state, axes = Partitioning(mesh(*sizes), model), state_of(optimizer, model), parameter_axes(model)
    here.check(state, axes, large_bytes=SMALL)
    shapes, shardings = by_path(state.params), by_path(here.state(state, axes).params)
    _, fsdp, tensor, expert, context = sizes
    for path, array in shapes.items():
        if not path.endswith("scale"):
            whole = "router" in path or (kv_heads < tensor and ("key" in path or "value" in path))
            part = shardings[path].shard_shape(array.shape)
            parts = fsdp * expert * context * (1 if whole else tensor)
            assert math.prod(array.shape) == math.prod(part) * parts, path


# What the check refuses


def with_rules(**rules):
    return {**TABLE, **rules}


def test_a_rule_that_nothing_uses_is_an_error():
    table = with_rules(depth=Rule(("tensor",)))
    with pytest.raises(UserError, match="rule depth -> tensor is used by no parameter and no row"):
        partitioning(tensor=2, table=table).check(state_of(), AXES)
    partitioning(tensor=1, table=table).check(state_of(), AXES)


def test_a_mesh_axis_that_divides_nothing_is_an_error():
    split = ("vocabulary", "mlp", "heads", "kv_heads", "expert_mlp")
    table = with_rules(**{name: Rule(whole=("tensor",)) for name in split})
    with pytest.raises(UserError, match="mesh axis tensor=4 divides nothing of this model; set MeshConfig.tensor to 1"):
        partitioning(1, 2, 4, table=table).check(state_of(), AXES)
    partitioning(1, 2, 1, table=table).check(state_of(), AXES)


def test_a_large_parameter_replicated_unsaid_is_an_error():
    table = with_rules(mlp=Rule())
    large = dataclasses.replace(MODEL, mlp_dim=4096)  # 2 layers × 128 × 4,096 × 4 B = 4 MiB, 2 MiB on a device
    here = Partitioning(mesh(1, 2, 2), large, table)
    with pytest.raises(UserError) as error:
        here.check(state_of(model=large), AXES)
    assert "params/layers/mlp/down/kernel of shape (2, 4096, 128) takes 2.0 MiB on every device" in str(error.value)
    assert "of mesh axis tensor=2, and the table does not say that it should" in str(error.value)
    Partitioning(mesh(1, 2, 2), large, with_rules(mlp=Rule(whole=("tensor",)))).check(state_of(model=large), AXES)
    partitioning(1, 2, 2, table=table).check(state_of(), AXES)  # small enough not to matter
    Partitioning(mesh(1, 2, 1), large, table).check(state_of(model=large), AXES)


def test_a_large_array_of_no_parameter_is_an_error():
    state = {"params": abstract_parameters(MODEL), "extra": Array((1024, 512), jnp.float32)}
    with pytest.raises(
        UserError, match=r"extra of shape \(1024, 512\) takes 2.0 MiB on every device of mesh axis data=2"
    ):
        partitioning(2).check(state, AXES)
    partitioning().check(state, AXES)


def test_a_large_moment_of_another_shape_is_an_error():
    """A moment that belongs to a parameter by name but not by shape is not taken for it."""
    params = abstract_parameters(MODEL)
    state = {"params": params, "mu": {"head": {"kernel": Array((4096, 256), jnp.float32)}}}
    with pytest.raises(UserError, match="mu/head/kernel"):
        partitioning(1, 2).check(state, AXES)


# constrain


def test_constrain_is_nothing_outside_a_partitioning():
    x = jnp.ones((3, 5))
    assert constrain(x, ("batch", "length")) is x


def test_constrain_inside_is_in_the_program_and_gone_afterwards():
    here = Partitioning(make_mesh(MeshConfig(), jax.devices()[:1]), MODEL)

    @jax.jit
    def inner(x):  # jitted once, for both: its trace must not outlive the mesh that it was made for
        return constrain(x, ("batch", None))

    def traced():
        return str(jax.make_jaxpr(inner)(jnp.ones((4, 5))))

    assert "sharding_constraint" not in traced()
    with here:
        assert "sharding_constraint" in traced()
        with here:
            assert "sharding_constraint" in traced()
        assert "sharding_constraint" in traced()
    assert "sharding_constraint" not in traced()


def test_constrain_refuses_what_does_not_divide():
    x = Array((6, 5), jnp.float32)
    with (
        partitioning(2, 2),
        pytest.raises(UserError, match=r"batch of 6 does not divide over mesh axes data=2 × fsdp=2"),
    ):
        jax.eval_shape(lambda x: constrain(x, ("batch", "length")), x)


def test_constrain_refuses_another_number_of_axes():
    with partitioning(2, 2), pytest.raises(ValueError, match=r"3 logical axes .* shape \(6, 5\)"):
        jax.eval_shape(lambda x: constrain(x, ("batch", "length", "mlp")), Array((6, 5), jnp.float32))
