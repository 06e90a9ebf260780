"""Tokenises and packs a mixture: `python -m tools.build_cache --mixture NAME --seq_length L --out DIR`.

Repeat the command to resume after a kill: finished work is kept, and the bytes come out the same. `--mixture` may be
given several times, as NAME@FIRST_ROW, for a mixture that changes during the run.
"""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path

from hephaestus_jax.errors import UserError
from tools._command import quiet_imports, run


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.build_cache", description=__doc__)
    parser.add_argument("--mixture", action="append", default=[], help="seqio task or mixture, NAME or NAME@FIRST_ROW")
    parser.add_argument("--data", help="your own directory of JSONL or Parquet, in place of --mixture")
    parser.add_argument("--seq_length", type=int, required=True, help="tokens per row")
    parser.add_argument("--out", type=Path, required=True, help="directory of the caches and mixture.json")
    parser.add_argument("--corpus", help="corpus of the built-in tasks (default: $HEPHAESTUS_CORPUS)")
    parser.add_argument("--environments", help="corpus of played episodes (default: $HEPHAESTUS_ENVIRONMENTS)")
    parser.add_argument("--vocabulary", help="tokenizer.json or SentencePiece model (default: $HEPHAESTUS_VOCABULARY)")
    parser.add_argument("--chat", help="template family of trajectories (default: $HEPHAESTUS_CHAT, else llama3)")
    parser.add_argument("--train_on", choices=["all", "assistant"], default="all", help="what of a trajectory has loss")
    parser.add_argument("--no_metadata", action="store_true", help="do not prepend each document's host at weight 0")
    parser.add_argument("--import", dest="modules", action="append", default=[], help="module that registers tasks")
    parser.add_argument("--splits", default="train,validation", help="comma-separated (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="order of the rows (default: %(default)s)")
    parser.add_argument("--denominator", type=int, default=3000, help="rows per block of exact rates")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    parser.add_argument("--train_rows", type=int, help="rows of the planned run, for the table of epochs")
    return parser.parse_args()


def main() -> None:
    """Registers what the arguments name, builds, and prints what a run would use."""
    args = _arguments()
    if bool(args.mixture) == bool(args.data):
        raise UserError("give either --mixture NAME or --data DIR")
    with quiet_imports():
        import data_tasks
        from data_tasks.caching import CacheRequest, StageRequest, build_mixture
        from hephaestus_jax.formats.rendering import RecordRenderer

    chat = args.chat or data_tasks.current().renderer.chat
    data_tasks.configure(
        corpus=args.corpus,
        environments=args.environments,
        vocabulary=args.vocabulary,
        renderer=RecordRenderer(chat=chat, train_on=args.train_on, metadata=not args.no_metadata),
    )
    for module in args.modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise UserError(f"--import {module}: {error}; run from the folder that holds it") from error
    if args.data:
        args.mixture = [data_tasks.add_user_task("user_data", args.data).name]
    request = CacheRequest(
        stages=tuple(StageRequest.parse(text) for text in args.mixture),
        sequence_length=args.seq_length,
        out=args.out,
        seed=args.seed,
        denominator=args.denominator,
        splits=tuple(args.splits.split(",")),
        workers=args.workers,
        modules=tuple(args.modules),
    )
    mixture = build_mixture(request)
    rows = args.train_rows or sum(part.rows for part in mixture.spec.tasks.values())
    print(f"\na run of {rows:,} rows of {args.seq_length:,} tokens would take")
    print(mixture.describe(rows))
    print(f"\nwrote {args.out / 'mixture.json'}")


if __name__ == "__main__":
    run(main)
