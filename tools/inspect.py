"""Shows decoded rows: segments and loss weights in colour, source and licence of each segment.

    python -m tools.inspect CACHES --vocabulary FILE                  the first rows of a run
    python -m tools.inspect CACHES --vocabulary FILE --row 12 700     rows of a run (of a cache, given a cache)
    python -m tools.inspect CACHES --vocabulary FILE --record ID      every row that holds a piece of a record
    python -m tools.inspect CACHES --vocabulary FILE --search TEXT    rows whose text holds TEXT
    ... --html FILE                                                   as one self-contained page
    python -m tools.inspect CACHES --verify                           reads every byte and compares it with its digest

CACHES is what `python -m tools.build_cache` wrote (a folder with mixture.json) or a single cache within it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from hephaestus_jax.data.vocabularies import load_vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.store import Corpus
from hephaestus_jax.reports.inspection import Inspection, open_caches, with_paths
from hephaestus_jax.reports.rows import InspectedRow, TerminalStyle, legend, terminal
from hephaestus_jax.reports.rows_html import html_page
from tools._command import run


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.inspect", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("caches", help="folder with mixture.json, or one cache; a path or a URL")
    parser.add_argument("--vocabulary", help="tokenizer.json or SentencePiece model (default: $HEPHAESTUS_VOCABULARY)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--row", type=int, nargs="+", help="row numbers, from 0")
    which.add_argument("--record", help="record id, 32 hexadecimal digits")
    which.add_argument("--search", help="a text to find, exactly as it is written")
    which.add_argument("--verify", action="store_true", help="look for damage instead of showing rows")
    parser.add_argument("--task", default="", help="only this task of the mixture; --row then counts in its cache")
    parser.add_argument("--limit", type=int, default=3, help="rows to show, unless --row names them (default: 3)")
    parser.add_argument("--corpus", help="corpus the caches were made from: tells each record's place in its source")
    parser.add_argument("--html", type=Path, help="write a page instead of showing rows here")
    parser.add_argument("--tokens", action="store_true", help="mark the boundaries of tokens")
    parser.add_argument("--color", choices=["auto", "always", "never"], default="auto", help="(default: auto)")
    return parser.parse_args()


def _rows(args: argparse.Namespace) -> Iterator[InspectedRow]:
    path = args.vocabulary or os.environ.get("HEPHAESTUS_VOCABULARY")
    if not path:
        raise UserError("no vocabulary: give --vocabulary FILE, the one the caches were made with")
    inspection = Inspection.open(args.caches, load_vocabulary(path), args.task)
    if args.row is not None:
        rows = inspection.rows(args.row)
    elif args.record:
        rows = islice(inspection.record(args.record.lower()), args.limit)
    elif args.search is not None:
        rows = islice(inspection.search(args.search), args.limit)
    else:
        available = args.limit if inspection.mixture else min(args.limit, len(inspection.caches[0]))
        rows = inspection.rows(range(available))
    return with_paths(rows, Corpus(Path(args.corpus))) if args.corpus else rows


def _first(rows: Iterator[InspectedRow], args: argparse.Namespace) -> Iterator[InspectedRow]:
    """The same rows, after it is known that there are any: an error must come before the page is begun."""
    row = next(rows, None)
    if row is None:
        raise UserError(f"no row holds {args.search!r}" if args.search else f"{args.caches} has no rows")
    yield row
    yield from rows


def main() -> None:
    """Shows the chosen rows."""
    args = _arguments()
    if args.limit < 1:
        raise UserError(f"--limit is {args.limit}; show at least 1 row")
    if args.verify:
        caches, _ = open_caches(args.caches, args.task)
        for cache in caches:
            cache.verify()
        print(f"{len(caches)} caches as they were built, {sum(map(len, caches)):,} rows")
        return
    highlight = args.search or ""
    rows = _first(_rows(args), args)
    if args.html:
        title = f"{Path(args.caches).name or args.caches}: decoded rows"
        about = f"{args.caches}" + (f", rows that hold {args.search!r}" if args.search else "")
        pieces = [next(html := html_page(rows, title, about, highlight)), *html]
        try:
            args.html.parent.mkdir(parents=True, exist_ok=True)
            args.html.write_text("".join(pieces), encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {args.html}: {error.strerror}; give --html another file") from error
        print(f"wrote {args.html} ({args.html.stat().st_size / 1e6:.1f} MB)")
        return
    coloured = args.color == "always"
    if args.color == "auto":
        coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    style = TerminalStyle(coloured, args.tokens, highlight)
    for number, piece in enumerate(terminal(rows, style)):
        sys.stdout.write(f"{legend(style)}\n\n{piece}" if number == 0 else piece)
        sys.stdout.flush()


if __name__ == "__main__":
    run(main)
