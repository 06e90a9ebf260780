"""One host of several, as a process of its own: loads its rows, makes global arrays, prints what the whole mesh holds.

Arguments: mixture, number of batches, batch size, this host, hosts, port of the coordinator. Eight devices in all, as
a mesh of 4 row shards (data × fsdp) by 2 sequence shards. Host 0 prints one digest per batch as JSON.
"""

import itertools
import json
import os
import sys

import numpy as np

GROUP = 20  # batches gathered together: collectives between processes on one machine are slow


def main() -> None:
    url, count, batch_size, host, hosts, port = sys.argv[1], *map(int, sys.argv[2:])
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={8 // hosts} {os.environ.get('XLA_FLAGS', '')}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from hephaestus_jax.data.loader import Batch, Loader, batch_digest, host_rows, to_global
    from hephaestus_jax.data.mixture import open_mixture

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", hosts, host)
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "context"))
    sharding = NamedSharding(mesh, PartitionSpec(("data", "fsdp"), "context"))
    replicated = NamedSharding(mesh, PartitionSpec())
    gather = jax.jit(lambda batches: jax.tree.map(lambda *a: jnp.stack(a), *batches), out_shardings=replicated)
    places = host_rows(sharding, batch_size)
    assert len(places) == batch_size // hosts, places
    digests = []
    with Loader(open_mixture(url), batch_size, 0, places) as loader:
        for _ in range(count // GROUP):
            arrays = [to_global(batch, sharding) for batch in itertools.islice(loader, GROUP)]
            assert all(array.shape[0] == batch_size for array in arrays[0].values())
            gathered = {name: np.asarray(array) for name, array in gather(arrays).items()}
            for n in range(GROUP):
                first = len(digests) * batch_size
                whole = {name: array[n] for name, array in gathered.items()}
                rows = np.arange(first, first + batch_size)
                batch = Batch(**whole, rows=rows, places=rows - first, batch_size=batch_size, next_row=rows[-1] + 1)
                digests.append(batch_digest(batch))
    if host == 0:
        print(json.dumps(digests))


if __name__ == "__main__":
    main()
