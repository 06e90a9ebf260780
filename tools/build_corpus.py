"""Builds a corpus from the installed packages, and prints what is in it.

    python -m tools.build_corpus --config gin/corpora/installed.gin --out DIR [--gin.InstalledCorpusConfig.workers=2]

A build that was interrupted goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

from hephaestus_jax.forge.config import InstalledCorpusConfig
from hephaestus_jax.forge.ledger import table
from hephaestus_jax.forge.pipeline import build_installed_corpus
from hephaestus_jax.gin_files import load_gin, split_overrides
from hephaestus_jax.progress import duration
from tools._command import run


def main() -> None:
    overrides, arguments = split_overrides(sys.argv[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Settings: --gin.InstalledCorpusConfig.NAME=value or the names at the head of the gin file.",
    )  # fmt: skip
    parser.add_argument("--config", required=True, help="a gin file, for instance gin/corpora/installed.gin")
    parser.add_argument("--out", required=True, type=Path, help="folder of the corpus")
    options = parser.parse_args(arguments)
    config = load_gin(InstalledCorpusConfig, options.config, overrides)
    start = time.monotonic()
    corpus = build_installed_corpus(config, options.out)
    print(table(corpus))
    held_out = corpus.manifest["held_out"]
    print(f"held out: {held_out['apis']:,} APIs in {held_out['families']:,} families ({held_out['file']})")
    if quarantined := corpus.manifest["quarantine"]["total"]:
        print(f"quarantined: {quarantined:,} files (manifest.json tells which and why)")
    own, worker = (resource.getrusage(who).ru_maxrss / 1e6 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"time {duration(time.monotonic() - start)}, peak memory {own:.2f} GB, largest worker {worker:.2f} GB")
    print(f"corpus at {options.out}")


if __name__ == "__main__":
    run(main)
