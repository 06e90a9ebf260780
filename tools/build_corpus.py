"""Builds a corpus from its sources, and prints what is in it.

    python -m tools.build_corpus --config gin/corpora/forge.gin --out DIR [--sources botocore,toolbench=FOLDER]
        [--licence_policy permissive|stated|any] [--workers N] [--sample F] [--import MODULE]

A build that was interrupted goes on where it was when the same command is given again. Beside the records it writes
DIR/corpus_report.html.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import resource
import sys
import time
from pathlib import Path

from hephaestus_jax.forge.config import ForgeConfig
from hephaestus_jax.forge.hygiene.licences import POLICIES
from hephaestus_jax.forge.ledger import api_table, table
from hephaestus_jax.forge.pipeline import build_corpus
from hephaestus_jax.forge.stage_times import StageTimes
from hephaestus_jax.gin_files import load_gin, split_overrides
from hephaestus_jax.progress import duration
from hephaestus_jax.reports.corpus_report import write_corpus_report
from tools._command import run


def main() -> None:
    overrides, arguments = split_overrides(sys.argv[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Settings: --gin.ForgeConfig.NAME=value or the names at the head of the gin file.",
    )  # fmt: skip
    parser.add_argument("--config", required=True, help="a gin file, for instance gin/corpora/forge.gin")
    parser.add_argument("--out", required=True, type=Path, help="folder of the corpus")
    parser.add_argument("--sources", help="comma-separated names, in place of the file's; NAME=FOLDER reads a folder")
    parser.add_argument("--licence_policy", choices=POLICIES, help="which licences may be used")
    parser.add_argument("--workers", type=int, help="processes; they change no byte")
    parser.add_argument("--sample", type=float, help="fraction of the files of each source")
    parser.add_argument("--import", dest="modules", action="append", default=[], help="a module with further sources")
    options = parser.parse_args(arguments)
    sys.path.insert(0, os.getcwd())
    for module in options.modules:
        importlib.import_module(module)
    config = load_gin(ForgeConfig, options.config, overrides)
    given = {
        "sources": tuple(options.sources.split(",")) if options.sources is not None else None,
        "licence_policy": options.licence_policy,
        "workers": options.workers,
        "sample": options.sample,
    }
    config = dataclasses.replace(config, **{name: value for name, value in given.items() if value is not None})
    start, times = time.monotonic(), StageTimes()
    corpus = build_corpus(config, options.out, times)
    print(table(corpus))
    print(api_table(corpus))
    print(times.table())
    manifest = corpus.manifest
    held_out = manifest["held_out"]
    print(f"held out: {held_out['apis']:,} APIs in {held_out['families']:,} families ({held_out['file']})")
    for name, reason in manifest["unavailable_sources"].items():
        print(f"not available: {name}: {reason}")
    if quarantined := manifest["quarantine"]["total"]:
        print(f"quarantined: {quarantined:,} inputs (manifest.json tells which and why)")
    own, worker = (resource.getrusage(who).ru_maxrss / 1e6 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"time {duration(time.monotonic() - start)}, peak memory {own:.2f} GB, largest worker {worker:.2f} GB")
    write_corpus_report(corpus, options.out / "corpus_report.html")
    print(f"corpus at {options.out}, described in {options.out / 'corpus_report.html'}")


if __name__ == "__main__":
    run(main)
