"""Compiles a run's train step for TPUs that need not be there, and says whether it fits and what it would take.

    python -m tools.compile_check --gin_file=gin/runs/tpu/llama3_8b_v5e_256.gin --topology=v5e:16x16
    python -m tools.compile_check --gin_file=... --topology=v5p:4x4x4 --gin.BATCH_SIZE=128 --suggest

Needs libtpu (`pip install 'hephaestus_jax[tpu-compile]'`), no TPU, no mixture and no weights. Memory, FLOPs and
collectives are those of the compiled program. Exit status 1: it does not fit into the chips' memory.
"""

from __future__ import annotations

import argparse
import json
import sys

from tools._command import quiet_imports, run


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.compile_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--gin.NAME=VALUE sets a macro or a field, as for `python -m train`.",
    )
    parser.add_argument("--gin_file", action="append", required=True, help="may be repeated; later files override")
    parser.add_argument("--topology", required=True, help="a slice by its shape in chips, such as v5e:16x16")
    parser.add_argument("--length", type=int, help="tokens of a row (default: SEQUENCE_LENGTH of the gin files)")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    parser.add_argument("--suggest", action="store_true", help="search remat, microbatches and mesh for what fits")
    parser.add_argument("--keep_text", default="", metavar="FILE", help="write the compiled program there")

    from hephaestus_jax.compile_check.topologies import parse_topology, prepare_environment

    prepare_environment()  # before JAX is imported
    with quiet_imports():
        from hephaestus_jax.compile_check.check import check, load_config, row_length
        from hephaestus_jax.compile_check.report import as_json, in_words
        from hephaestus_jax.compile_check.suggest import in_words as suggestion_in_words
        from hephaestus_jax.compile_check.suggest import suggest
        from hephaestus_jax.gin_files import split_overrides

    overrides, rest = split_overrides(sys.argv[1:])
    options = parser.parse_args(rest)
    topology = parse_topology(options.topology)
    config = load_config(options.gin_file, overrides)
    length = options.length or row_length(options.gin_file, overrides)
    found = check(config, length, topology, options.keep_text)
    print(json.dumps(as_json(found), indent=1) if options.json else in_words(found), flush=True)
    if options.suggest:
        result = suggest(found, lambda changed: check(changed, length, topology))
        print(suggestion_in_words(result), file=sys.stderr if options.json else sys.stdout)
    if not found.fits:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
