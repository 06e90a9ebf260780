"""One process of a run, told by the environment: a few train steps, then what the mode says.

run_worker.py preempted    prints its losses, then goes on until a SIGTERM and prints the step it stopped at
run_worker.py failing      process 1 raises a UserError while the others wait for it in a collective
run_worker.py values       prints what it and process 0 make of a broadcast
"""

from __future__ import annotations

import json
import sys
import time

from hephaestus_jax import distributed
from hephaestus_jax.config import MeshConfig
from hephaestus_jax.errors import UserError


def losses() -> list[float]:
    """Of three train steps on all devices of all processes: a device for every row shard and half of the heads."""
    import jax
    from small_runs import GROUPS, LENGTH, ROWS, packed_rows, run_config

    from hephaestus_jax.sharding import Partitioning, make_mesh
    from hephaestus_jax.train_step import abstract_batch, abstract_state, init_state, make_train_step

    config = run_config(MeshConfig(1, 2, 2))
    partitioning = Partitioning(make_mesh(config.mesh), config.model)
    abstract = abstract_state(config, partitioning)
    state = init_state(config, abstract)
    step = make_train_step(config, partitioning, abstract, GROUPS)
    shapes = abstract_batch(ROWS, LENGTH, partitioning)
    found = []
    for seed in range(3):
        rows = packed_rows(seed)
        batch = {
            name: jax.make_array_from_callback(x.shape, shapes[name].sharding, lambda index, x=x: x[index])
            for name, x in rows.items()
        }
        state, metrics = step(state, batch)
        found.append(float(metrics.loss))
    return found


def main(mode: str) -> None:
    distributed.initialise(timeout_seconds=1 if mode == "lonely" else 120)
    import jax

    if mode == "values":
        mine = {"process": jax.process_index(), "text": "é\n", "numbers": [1, 1e-17, None]}
        print(json.dumps([distributed.broadcast(mine), distributed.is_main()]))
        return
    found = losses() if mode == "preempted" else []
    with distributed.Preemption() as preemption:
        print(json.dumps({"losses": found, "processes": jax.process_count()}), flush=True)
        for step in range(2000):
            if mode == "failing" and step == 3 and jax.process_index() == 1:
                raise UserError("row 7 is damaged; build the cache again")
            if preemption.requested(step):
                assert preemption.requested(step + 1)
                print(json.dumps({"stopped": step}))
                return
            time.sleep(0.02 * (1 + jax.process_index()))  # one is faster than the other
            distributed.barrier("step")


if __name__ == "__main__":
    with distributed.ending_together():
        main(sys.argv[1])
