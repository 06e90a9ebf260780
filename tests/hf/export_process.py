"""Exports zeros in a process of its own: `export_process.py FOLDER "stop at N" | "limit BYTES"`.

It stops (until it is killed) where the Nth array is read, or has files end at so many bytes, as on a full disk.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np

from hephaestus_jax.errors import UserError
from hephaestus_jax.hf import llama
from hephaestus_jax.hf.exporting import export_model
from hephaestus_jax.hf.origin import load_origin

folder, how = Path(sys.argv[1]), sys.argv[2]
origin = load_origin(folder / "origin")
model = origin.config.model
shapes = {weight.path: weight.our_shape(model) for weight in llama.weights(model)}
reads = 0


def read(path, index):
    global reads
    reads += 1
    if how == f"stop at {reads}":
        print(f"reading the {reads}th", flush=True)
        time.sleep(600)
    shape = shapes[path]
    return np.zeros(shape if index is None else shape[1:], np.float32)


if how.startswith("limit"):
    limit = int(how.split()[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    export_model(folder / "out", model, read, origin, progress=False)
except UserError as error:
    print(f"UserError: {error}")
