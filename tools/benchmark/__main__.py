"""`python -m tools.benchmark NAME [options]`: one benchmark, one JSON line on standard output.

Each benchmark is a module of this package with `add_arguments(parser)` and `run(args) -> dict`; the keys of the
dictionary name their units. Only the module that is asked for is imported.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence

from hephaestus_jax.errors import UserError
from tools._command import run

BENCHMARKS = {
    "tokenize": "tokens per second of the tokenise step against the tokenizer's own encode_batch",
    "pack": "packing efficiency and rows per second",
    "loader": "rows per second and bytes read against a plain memory-mapped read",
    "loss": "time and memory of the chunked loss against one that makes all logits",
    "convert": "bytes per second of import and export beside a plain copy, and host memory",
    "dedup": "near-duplicates of 200,000 records beside datasketch and datatrove: seconds, memory, recall, precision",
    "model": "tokens per second forward and backward, and compile time at two depths",
    "train": "tokens per second of the training step, beside the same step of transformers and PyTorch",
    "checkpoint": "bytes per second of saving and restoring beside a plain copy, and what a step loses meanwhile",
    "scaling": "growth of step time, memory and compile time with parameters, row length and devices",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark that the first argument names."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    width = max(map(len, BENCHMARKS))
    overview = "\n".join(f"  {name:{width}}  {purpose}" for name, purpose in BENCHMARKS.items())
    usage = f"usage: python -m tools.benchmark NAME [options]; NAME --help shows the options\n\n{overview}"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage)
        return
    name, *options = arguments
    if name not in BENCHMARKS:
        raise UserError(f"no benchmark is called {name}; there are {', '.join(BENCHMARKS)}")
    module = importlib.import_module(f"tools.benchmark.{name}")
    parser = argparse.ArgumentParser(prog=f"python -m tools.benchmark {name}", description=module.__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    module.add_arguments(parser)
    print(json.dumps({"benchmark": name, **module.run(parser.parse_args(options))}))


if __name__ == "__main__":
    run(main)
