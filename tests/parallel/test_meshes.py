"""Every mesh of eight virtual devices computes what one device computes, and really divides what it should."""

import json
from collections import Counter

import pytest
from mesh_worker import CASES
from processes import finish, start

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found():
    [(status, output, errors)] = finish([start("mesh_worker.py", devices=8)])
    assert status == 0, errors
    # what XLA says where it can change a sharding only by way of a copy of the whole array on every device
    assert "Involuntary full rematerialization" not in errors, errors
    return json.loads(output.splitlines()[-1])


def test_loss_and_gradients_are_those_of_one_device(found):
    assert [result["case"] for result in found["gradients"]] == json.loads(json.dumps(CASES))
    for result in found["gradients"]:
        assert result["sums"] < 1e-6, result
        assert result["gradients"] < 1e-5, result
        arrays = {"tied, 2 kv heads": 11, "untied, 4 kv heads": 12, "experts": 13, "everything": 19, "adapters": 14}
        assert result["arrays"] == arrays[result["case"][1]]
        assert result["smallest_norm"] > 0.1, result  # no gradient agrees because it vanishes


def test_each_axis_brings_its_collectives_and_no_others(found):
    collectives = {tuple(result["case"][0]): Counter(result["collectives"]) for result in found["gradients"]}
    data, fsdp, tensor = collectives[8, 1, 1, 1, 1], collectives[1, 8, 1, 1, 1], collectives[1, 1, 1, 1, 8]
    assert set(data) == {"all-reduce"}  # gradients; nothing is gathered
    # Each of 7 matrices a layer, and the output projection, is gathered before it is used, in both directions.
    assert fsdp["all-gather"] >= 15
    assert fsdp["all-reduce"] + fsdp["reduce-scatter"] >= 1
    # Attention and feed-forward each end in a sum over tensor, and the softmax takes a maximum and a sum over it.
    assert tensor["all-reduce"] >= 8
    assert tensor["all-gather"] <= 2  # of activations around the key/value heads that each device computes whole


def test_steps_on_eight_devices_are_those_of_one(found):
    one, eight = found["steps"]["1"], found["steps"]["8"]
    assert eight["losses"] == pytest.approx(one["losses"], rel=1e-6)
    assert len(set(one["losses"])) == 3
    assert eight["first"] == one["first"]  # initial parameters, bit for bit


def test_a_device_holds_its_part_only(found):
    shards = {name: tuple(shape) for name, shape in found["steps"]["8"]["shards"].items()}
    parameters = {name.removeprefix("params/"): shape for name, shape in shards.items() if name.startswith("params/")}
    # V 64, D 32, F 48, Y 2, N 8, K 1, H 6; embed over fsdp=2, the others over tensor=2, one kv head whole
    assert parameters == {
        "embedder/embedding": (32, 16),
        "head/kernel": (16, 32),
        "final_norm/scale": (32,),
        "layers/attention_norm/scale": (2, 32),
        "layers/mlp_norm/scale": (2, 32),
        "layers/attention/query/kernel": (2, 16, 4, 6),
        "layers/attention/key/kernel": (2, 16, 1, 6),
        "layers/attention/value/kernel": (2, 16, 1, 6),
        "layers/attention/out/kernel": (2, 4, 6, 16),
        "layers/mlp/gate/kernel": (2, 16, 24),
        "layers/mlp/up/kernel": (2, 16, 24),
        "layers/mlp/down/kernel": (2, 24, 16),
    }


def test_rows_in_parts_attend_as_whole_ones_under_every_masking(found):
    assert len(found["maskings"]) == 4
    for result in found["maskings"]:
        assert result["gradients"] < (1e-5 if result["dtype"] == "float32" else 0.03), result


def test_long_rows_never_have_their_scores(found):
    """A device's share of one layer's scores alone, a query of 4,096 with each of 32,768 keys, would be 2 GiB."""
    assert found["long"]["scores_bytes"] == 2 << 30
    assert found["long"]["temporary_bytes"] < 128 << 20


def test_experts_lose_nothing_where_all_tokens_go_to_the_same(found):
    for result in found["extreme"].values():
        assert result["gradients"] < 1e-5, result
        for counts in result["counts"]:
            assert counts[0] == counts[1] > 0 and not any(counts[2:])


def test_bfloat16_differs_by_its_rounding(found):
    [result] = found["bfloat16"]
    assert result["sums"] < 0.02 and result["gradients"] < 0.2, result
