"""One process of a run, told by the environment: a few train steps, then what the mode says.

run_worker.py preempted    prints its losses, then goes on until a SIGTERM and prints the step it stopped at
run_worker.py failing      process 1 raises a UserError while the others wait for it in a collective
run_worker.py values       prints what it and process 0 make of a broadcast
run_worker.py metadata     likewise, on a machine that JAX is to take for a TPU VM
"""

from __future__ import annotations

import json
import os
import sys
import time

from hephaestus_jax import distributed
from hephaestus_jax.errors import UserError


def main(mode: str) -> None:
    if mode == "metadata":
        del os.environ["TPU_SKIP_MDS_QUERY"]  # which `import jax` sets where there are no chips
    distributed.initialise(timeout_seconds=1 if mode == "lonely" else 120)
    import jax

    if mode in ("values", "metadata"):
        mine = {"process": jax.process_index(), "text": "é\n", "numbers": [1, 1e-17, None]}
        print(json.dumps([distributed.broadcast(mine), distributed.is_main()]))
        return
    with distributed.Preemption() as preemption:
        print("ready", jax.process_count(), jax.device_count(), flush=True)
        for step in range(2000):
            if mode == "failing" and step == 3 and jax.process_index() == 1:
                raise UserError("row 7 is damaged; build the cache again")
            if preemption.requested():
                assert preemption.requested()
                print(json.dumps({"stopped": step}))
                return
            time.sleep(0.02 * (1 + jax.process_index()))  # one is faster than the other
            distributed.barrier("step")


if __name__ == "__main__":
    with distributed.ending_together():
        main(sys.argv[1])
