"""Packing: rate and efficiency, and the whole of tokenising and packing against the tokenizer's own `encode_batch`.

Three parts: usual distributions of record lengths are packed; real records (a corpus, or the standard library) go
through tokenising, packing and, once more, through the whole build of a cache, in rounds that alternate with the bare
`encode_batch` of the same texts; a cache that is named tells its own efficiency. Rates are per CPU second, of all
threads together, so that they are rates per core and other work on the machine disturbs them little.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hephaestus_jax.data.cache import Cache
from hephaestus_jax.data.cache_build import UNIT_RECORDS, build_cache
from hephaestus_jax.data.cache_units import TokenTable, Unit, build_unit
from hephaestus_jax.data.identity import Origin
from hephaestus_jax.data.packing import pack, split
from hephaestus_jax.data.task import RenderedTask, TokenizedRecord
from hephaestus_jax.data.vocabularies import load_vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import Identified, Record, digest, identify
from hephaestus_jax.formats.rendering import RecordRenderer
from hephaestus_jax.formats.store import Corpus
from hephaestus_jax.progress import Progress
from tools.benchmark import tokenize as tokenize_benchmark
from tools.train_vocabulary import interleaved_records

DISTRIBUTIONS = {  # record lengths in tokens: (median, sigma) of a log-normal distribution
    "api_docs": (220.0, 0.8),
    "trajectories": (600.0, 0.9),
    "web_text": (500.0, 1.1),
    "code_files": (1_500.0, 1.3),
}
SYNTHETIC_CARRY = 16  # tokens


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--seq_length", type=int, default=2048, help="tokens per row (default: %(default)s)")
    parser.add_argument("--cache", help="a finished cache whose efficiency to report too")
    parser.add_argument("--unit_records", type=int, default=UNIT_RECORDS, help="packed together (default: %(default)s)")
    tokenize_benchmark.add_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures, and returns the line to print."""
    if min(args.rounds, args.unit_records) < 1 or args.megabytes <= 0:
        raise UserError("--rounds, --unit_records and --megabytes must be positive")
    renderer = RecordRenderer(chat=args.chat)
    records = _some_records(renderer, args)
    with tempfile.TemporaryDirectory() as folder, tokenize_benchmark.one_core():
        packed = {name: _pack_lengths(*shape, args) for name, shape in DISTRIBUTIONS.items()}
        found = {}
        for name, path in tokenize_benchmark.vocabularies(args, renderer, folder).items():
            found[name] = _build(
                name, RenderedTask("bench", "train", _Records(tuple(map(identify, records))), renderer, path), args
            )
    ratios = [entry["tokenize_and_pack_ratio_of_encode_batch"] for entry in found.values()]
    result = {
        "worst_ratio_of_encode_batch": min(ratios),
        "sequence_length_tokens": args.seq_length,
        "unit_records": args.unit_records,
        "records": len(records),
        "rounds": args.rounds,
        "packing": packed,
        "vocabularies": found,
    }
    if args.cache:
        manifest = Cache.open(args.cache).manifest
        result["cache_rows"] = manifest.rows
        result["cache_efficiency_percent"] = _percent(manifest.packing_efficiency)
    return result


@dataclass(frozen=True)
class _Records:
    """Records in memory."""

    records: tuple[Identified, ...]

    def fingerprint(self) -> str:
        return digest([record.id for record in self.records])

    def count(self) -> int:
        return len(self.records)

    def read(self, start: int, stop: int) -> Iterator[Identified]:
        return iter(self.records[start:stop])


def _some_records(renderer: RecordRenderer, args: argparse.Namespace) -> list[Record]:
    source = interleaved_records(Corpus(Path(args.corpus))) if args.corpus else tokenize_benchmark.standard_library()
    records, total = [], 0
    for record in source:
        records.append(record)
        total += len(renderer.render(record).text.encode())
        if total >= args.megabytes * 1e6:
            break
    return records


def _pack_lengths(median: float, sigma: float, args: argparse.Namespace) -> dict[str, float]:
    """One unit of records of drawn lengths, from tokens to rows."""
    rng = np.random.default_rng(0)
    lengths = np.maximum(2, rng.lognormal(np.log(median), sigma, args.unit_records)).astype(int)
    origin = Origin("synthetic", "1", "none")
    records = [
        TokenizedRecord(f"{number:032x}", origin, np.ones(n, np.int32), np.ones(n, np.float32), min(n, SYNTHETIC_CARRY))
        for number, n in enumerate(lengths)
    ]

    def work() -> float:
        packed = pack([piece for record in records for piece in split(record, args.seq_length)], args.seq_length)
        return float((packed.rows(args.seq_length).segment_ids_NL > 0).mean())

    seconds = [_cpu_seconds(work) for _ in range(args.rounds)]
    return {
        "tokens_per_cpu_s": round(int(lengths.sum()) / statistics.median(seconds)),
        "efficiency_percent": _percent(work()),
    }


def _build(name: str, task: RenderedTask, args: argparse.Namespace) -> dict[str, float]:
    """Both sides in alternating rounds. Rendering is not the tokenizer's work, so its time is measured by itself."""
    vocabulary = load_vocabulary(task.vocabulary)
    table = TokenTable.load(task.vocabulary)
    encode_batch = tokenize_benchmark.own_encode_batch(vocabulary)
    records = [record for _, record in task.source.read(0, task.count())]
    texts = [task.renderer.render(record).text for record in records]
    size = tokenize_benchmark.BATCH_RECORDS
    batches = [texts[start : start + size] for start in range(0, len(texts), size)]
    starts = range(0, len(records), args.unit_records)
    units: list[Unit] = []

    def units_of_task() -> None:
        units[:] = [
            build_unit(task, start, min(start + args.unit_records, len(records)), args.seq_length, table)
            for start in starts
        ]

    seconds: dict[str, list[float]] = {"encode_batch": [], "render": [], "units": [], "build": []}
    with Progress(f"{name}: measuring", "rounds", args.rounds) as progress:
        for _ in progress.track(range(args.rounds)):
            seconds["encode_batch"].append(_cpu_seconds(lambda: [encode_batch(batch) for batch in batches]))
            seconds["render"].append(_cpu_seconds(lambda: [task.renderer.render(record) for record in records]))
            seconds["units"].append(_cpu_seconds(units_of_task))
            with tempfile.TemporaryDirectory() as out:
                seconds["build"].append(
                    _cpu_seconds(lambda: build_cache(task, Path(out), args.seq_length, 1, args.unit_records))
                )
    bare, render, in_units, build = (statistics.median(times) for times in seconds.values())
    tokens = sum(unit.summary.tokens - unit.summary.counters.repeated_tokens for unit in units)
    rows = sum(unit.summary.rows for unit in units)
    return {
        "tokens": tokens,
        "rows": rows,
        "efficiency_percent": _percent(sum(unit.summary.tokens for unit in units) / (rows * args.seq_length)),
        "encode_batch_tokens_per_cpu_s": round(tokens / bare),
        "tokenize_and_pack_tokens_per_cpu_s": round(tokens / (in_units - render)),
        "tokenize_and_pack_ratio_of_encode_batch": _ratio(seconds["encode_batch"], seconds["units"], seconds["render"]),
        "with_rendering_ratio_of_encode_batch": _ratio(seconds["encode_batch"], seconds["units"]),
        "whole_build_tokens_per_cpu_s": round(tokens / build),
        "whole_build_ratio_of_encode_batch": _ratio(seconds["encode_batch"], seconds["build"]),
    }


def _ratio(theirs: list[float], ours: list[float], apart: list[float] | None = None) -> float:
    """Median over the rounds of their time by ours, `apart` taken from ours."""
    pairs = zip(theirs, ours, apart or [0.0] * len(ours), strict=True)
    return round(statistics.median(their / (our - other) for their, our, other in pairs), 3)


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _percent(share: float) -> float:
    return round(100 * share, 2)
