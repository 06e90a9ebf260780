"""The table and what follows from it. What the devices compute with it is in tests/parallel/test_meshes.py."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from hephaestus_jax.config import MeshConfig, ModelConfig, OptimizerConfig, TrainConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.model.decoder import abstract_parameters, parameter_axes
from hephaestus_jax.sharding import MESH_AXES, TABLE, Partitioning, Rule, constrain, make_mesh
from hephaestus_jax.train_step import fresh_state

MODEL = ModelConfig("small", 256, 128, 384, num_layers=2, num_heads=8, num_kv_heads=4, head_dim=32)
AXES = parameter_axes(MODEL)
Array = jax.ShapeDtypeStruct
SMALL = 64  # bytes: only scalars and other numbers per layer are smaller


def mesh(data=1, fsdp=1, tensor=1):
    """A mesh without devices, for what needs none."""
    return AbstractMesh((data, fsdp, tensor), MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def partitioning(data=1, fsdp=1, tensor=1, table=TABLE, **model):
    return Partitioning(mesh(data, fsdp, tensor), dataclasses.replace(MODEL, **model), table)


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
        (MeshConfig(3, 1, 1), 8, "does not divide 8 devices"),
        (MeshConfig(3, -1, 1), 8, "does not divide 8 devices"),
        (MeshConfig(2, 2, 1), 8, "covers 4 of 8 devices; set one of the sizes to -1"),
        (MeshConfig(2, 2, 4), 8, "does not divide 8 devices"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(config, count, message):
    with pytest.raises(UserError, match=message):
        make_mesh(config, [object()] * count)


def test_one_device_is_a_mesh():
    made = make_mesh(MeshConfig(), jax.devices()[:1])
    assert dict(made.shape) == {"data": 1, "fsdp": 1, "tensor": 1}
    assert set(made.axis_types) == {AxisType.Auto}


# The table


def test_parameters_are_split_as_the_table_says():
    specs = by_path(jax.tree.map(lambda s: s.spec, partitioning(2, 2, 2).tree(AXES)))
    assert {name: tuple(spec) for name, spec in specs.items()} == {
        "embedder/embedding": ("tensor", "fsdp"),
        "final_norm/scale": (None,),
        "head/kernel": ("fsdp", "tensor"),
        "layers/attention_norm/scale": (None, None),
        "layers/attention/query/kernel": (None, "fsdp", "tensor", None),
        "layers/attention/key/kernel": (None, "fsdp", "tensor", None),
        "layers/attention/value/kernel": (None, "fsdp", "tensor", None),
        "layers/attention/out/kernel": (None, "tensor", None, "fsdp"),
        "layers/mlp_norm/scale": (None, None),
        "layers/mlp/gate/kernel": (None, "fsdp", "tensor"),
        "layers/mlp/up/kernel": (None, "fsdp", "tensor"),
        "layers/mlp/down/kernel": (None, "tensor", "fsdp"),
    }


def test_rows_are_split_over_data_and_fsdp():
    here = partitioning(2, 4)
    assert here.batch.spec == PartitionSpec(("data", "fsdp"), None)
    assert here.row_shards == 8
    assert here.batch.shard_shape((16, 5)) == (2, 5)


@pytest.mark.parametrize(
    "axis, field, size, mesh_axes, mend",
    [
        ("vocabulary", "vocab_size", 16385, "tensor=2", "pad ModelConfig.vocab_size to 16386, a multiple of 2"),
        ("embed", "embed_dim", 129, "fsdp=2", "choose fsdp so that it divides ModelConfig.embed_dim"),
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
    assert here.spec(("embed", "kv_heads", "head_dim")) == PartitionSpec("fsdp", None, None)
    assert here.spec(("embed", "heads", "head_dim")) == PartitionSpec("fsdp", "tensor", None)
    assert "  kv_heads (4): whole: fewer than the 8 devices of tensor" in here.describe()
    here.check(state_of(), AXES, large_bytes=SMALL)  # nothing else is


def test_the_description_says_what_is_split_and_what_is_whole():
    lines = partitioning(2, 4, 2).describe()
    assert lines[0] == "mesh data=2 × fsdp=4 × tensor=2"
    assert [line.split(" (")[0].split(":")[0].strip() for line in lines[1:]] == list(TABLE)
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
        "row/head/kernel": ("fsdp",),
        "row/layers/attention/query/kernel": (None, "tensor", None),
        "row/layers/attention/key/kernel": (None, "fsdp", "tensor"),
        "row/layers/attention/out/kernel": (),
        "row/layers/mlp/gate/kernel": (None, "tensor"),
        "row/layers/mlp/down/kernel": ("tensor", "fsdp"),
    }
    here.check({"row": moments}, AXES, large_bytes=SMALL)


def test_equal_dimensions_are_read_as_the_ones_that_are_split_further():
    square = dataclasses.replace(MODEL, mlp_dim=128)
    here = Partitioning(mesh(1, 1, 4), square)
    moment = {"layers": {"mlp": {"up": {"kernel": Array((2, 128), jnp.float32)}}}}  # D gone, or F
    assert [tuple(s.spec) for s in jax.tree.leaves(here.state(moment, AXES))] == [(None, "tensor")]


@given(
    sizes=st.tuples(*[st.sampled_from([1, 2, 4, 8])] * 3),
    kv_heads=st.sampled_from([1, 2, 4, 8]),
    tied=st.booleans(),
    optimizer=st.sampled_from(["adamw", "muon", "adafactor"]),
)
@settings(max_examples=25, deadline=None)
def test_every_matrix_is_divided_over_fsdp_and_tensor(sizes, kv_heads, tied, optimizer):
    model = dataclasses.replace(MODEL, num_kv_heads=kv_heads, tied_embeddings=tied)
    here, state, axes = Partitioning(mesh(*sizes), model), state_of(optimizer, model), parameter_axes(model)
    here.check(state, axes, large_bytes=SMALL)
    shapes, shardings = by_path(state.params), by_path(here.state(state, axes).params)
    _, fsdp, tensor = sizes
    for path, array in shapes.items():
        if not path.endswith("scale"):
            few = kv_heads < tensor and ("key" in path or "value" in path)
            part = shardings[path].shard_shape(array.shape)
            assert math.prod(array.shape) == math.prod(part) * fsdp * (1 if few else tensor), path


# What the check refuses


def with_rules(**rules):
    return {**TABLE, **rules}


def test_a_rule_that_nothing_uses_is_an_error():
    table = with_rules(expert=Rule(("tensor",)))
    with pytest.raises(UserError, match="rule expert -> tensor is used by no parameter and no row"):
        partitioning(tensor=2, table=table).check(state_of(), AXES)
    partitioning(tensor=1, table=table).check(state_of(), AXES)


def test_a_mesh_axis_that_divides_nothing_is_an_error():
    table = with_rules(**{name: Rule(whole=("tensor",)) for name in ("vocabulary", "mlp", "heads", "kv_heads")})
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
