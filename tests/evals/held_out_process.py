"""Held-out losses of the real model on one and on eight virtual devices, printed as JSON."""

import dataclasses
import json
from types import SimpleNamespace

import jax
from test_held_out import LENGTH, VOCABULARY, make_cache, plain

from hephaestus_jax.config import ComputeConfig, EvaluationConfig, MeshConfig, ModelConfig, TrainConfig
from hephaestus_jax.evals.held_out import HeldOut
from hephaestus_jax.model.decoder import init_parameters, parameter_axes
from hephaestus_jax.sharding import Partitioning, make_mesh
from hephaestus_jax.train_step import make_eval_step

MODEL = ModelConfig("tiny", VOCABULARY + 14, 16, 32, 1, 4, 2, 4, max_positions=LENGTH)


def main() -> None:
    config = TrainConfig(
        "r",
        "m",
        MODEL,
        1000,
        8,
        compute=ComputeConfig(dtype="float32", loss_chunk=5),
        evaluation=EvaluationConfig(batch_size=16),
    )
    mixture = SimpleNamespace(validation={"docs": make_cache(37, plain), "code": make_cache(16, plain, seed=1)})
    params = init_parameters(MODEL, jax.random.key(0))
    results = {}
    for sizes, devices in ((MeshConfig(1, 1), 1), (MeshConfig(2, 2, tensor=2), 8)):
        partitioning = Partitioning(make_mesh(sizes, jax.devices()[:devices]), MODEL)
        placed = jax.device_put(params, partitioning.tree(parameter_axes(MODEL)))
        held_out = HeldOut(config, mixture, {}, partitioning, make_eval_step(config, partitioning, groups=1))
        results[devices] = {name: dataclasses.asdict(loss) for name, loss in held_out.run(placed).items()}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
