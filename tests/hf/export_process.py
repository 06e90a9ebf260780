"""Exports random numbers in a process of its own: `export_process.py FOLDER HOW [SOURCE [OUT]]`.

HOW is "stop at N" (until it is killed, where the Nth array is read), "limit BYTES" (files end there, as on a full
disk), "slowly SEED" (some milliseconds for every array, and a line) or anything else.
"""

import random
import resource
import sys
import time
import zlib
from pathlib import Path

import numpy as np

from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.exporting import export_model
from hephaestus_jax.hf.origin import load_origin

folder, how, source, out = [Path(sys.argv[1]), *sys.argv[2:], *["", "out"][len(sys.argv) - 3 :]]
origin = load_origin(folder / "origin")
model = origin.config.model
shapes = {weight.path: weight.our_shape(model) for weight in origin.config.family.weights(model)}
reads = 0
pauses = random.Random(how)


def read(path, index):
    global reads
    reads += 1
    if how == f"stop at {reads}":
        print(f"reading the {reads}th", flush=True)
        time.sleep(600)
    if how.startswith("slowly"):
        print(f"reading the {reads}th", flush=True)
        time.sleep(pauses.random() / 50)
    rng = np.random.default_rng(zlib.crc32(f"{path} {index}".encode()))
    return rng.standard_normal(shapes[path][len(index) :]).astype(np.float32)


if how.startswith("limit"):
    limit = int(how.split()[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    export_model(folder / out, model, read, origin, source=source, progress=False)
except UserError as error:
    print(f"UserError: {error}")
