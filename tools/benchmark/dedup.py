"""Near-duplicates: time, memory, recall and precision, beside `datasketch` and `datatrove` where they are installed.

One set of texts, written once; each library reads it in a fresh process with the same number of permutations, and
gives back the groups it finds. Truth is the exact Jaccard similarity: of pairs that any of the libraries holds for
similar, of pairs that were planted, and of random pairs. Recall is the share of the similar pairs that are in one
group; precision the share of the grouped texts that are similar to another text of their group.

Synthetic texts have words distributed by Zipf's law; a share of them are planted copies with some words replaced, so
that similarities lie on both sides of the threshold. With --corpus the texts are the descriptions of real APIs.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge import dedup
from hephaestus_jax.forge.api_identity import api_text
from hephaestus_jax.formats.records import ApiDoc
from hephaestus_jax.formats.store import Corpus
from hephaestus_jax.progress import Progress

COPIES = 0.27  # share of the synthetic texts that are copies of others
VOCABULARY = 50_000
COMPARED_MEMBERS = 500  # of a group, that one of its texts is compared with
CLUSTER_PAIRS = 20  # pairs of one group whose exact similarity is asked for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--records", type=int, default=200_000, help="texts (default: %(default)s)")
    parser.add_argument("--corpus", help="a corpus whose API documentation to take instead of synthetic texts")
    parser.add_argument("--similar", type=float, default=dedup.SIMILAR, help="Jaccard threshold (default: %(default)s)")
    parser.add_argument("--sample", type=int, default=20_000, help="pairs compared exactly (default: %(default)s)")
    parser.add_argument("--only", nargs="*", choices=tuple(RUNS), help="libraries to run (default: all installed)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures, and returns the line to print."""
    if args.records < 10 or args.sample < 10 or not 0 < args.similar < 1:
        raise UserError("--records and --sample must be 10 or more, --similar between 0 and 1")
    wanted = args.only or [name for name in RUNS if name == "ours" or importlib.util.find_spec(name)]
    with tempfile.TemporaryDirectory() as folder:
        texts_file = Path(folder) / "texts.jsonl"
        planted = _write(texts_file, _corpus_texts(args) if args.corpus else _synthetic_texts(args.records))
        results = {name: _in_fresh_process(name, texts_file, args.similar, Path(folder)) for name in wanted}
        texts = list(_read(texts_file))
        found = {name: result.pop("groups") for name, result in results.items()}
    similar = _exactly_similar(texts, planted, found, args)
    for name, groups in found.items():
        if "failed" not in results[name]:
            results[name]["recall"] = _recall(groups, similar, len(texts), args.similar)
            results[name]["precision"] = _precision(groups, texts, args.similar, args.sample // 10)
    return {
        "records": len(texts),
        "texts": "corpus" if args.corpus else "synthetic",
        "permutations": dedup.PERMUTATIONS,
        "similar": args.similar,
        "pairs_compared_exactly": len(similar),
        "pairs_similar": sum(value >= args.similar for value in similar.values()),
        "libraries": results,
    }


def _synthetic_texts(records: int) -> Iterator[tuple[str, int]]:
    """Texts, each with the number of the one it was copied from, or -1."""
    draw = np.random.default_rng(0)
    # in letters: datatrove takes all numbers for one
    consonants, vowels = "bdfgklmnprst", "aeiou"
    spelled = ["".join(word) for word in itertools.product(consonants, vowels, consonants, vowels, "wxyz")]
    spelled = [first + second for first in ("", "ba", "do", "ki", "lu") for second in spelled][: VOCABULARY + 1]
    originals: list[tuple[int, np.ndarray]] = []
    for number in range(records):
        if originals and draw.random() < COPIES:
            # often of a few much-copied texts, as versions of one API are; now and then of any
            place = min(int(draw.pareto(0.6) * 3), len(originals) - 1)
            source, words = originals[place]
            words = words.copy()
            changed = draw.random(len(words)) < draw.choice([0, 0.01, 0.02, 0.04, 0.08, 0.15])
            words[changed] = draw.integers(0, VOCABULARY, int(changed.sum()))
        else:
            source = -1
            words = (VOCABULARY ** draw.random(int(draw.lognormal(3.9, 0.7)) + 5)).astype(int)  # Zipf's law
            originals.append((number, words))
        yield " ".join(map(spelled.__getitem__, words)), source


def _corpus_texts(args: argparse.Namespace) -> Iterator[tuple[str, int]]:
    records = (r for split in ("train", "validation") for _, r in Corpus(Path(args.corpus)).read("agent_docs", split))
    docs = (record for record in records if isinstance(record, ApiDoc))
    return ((api_text(doc), -1) for doc in itertools.islice(docs, args.records))


def _write(path: Path, texts: Iterable[tuple[str, int]]) -> list[tuple[int, int]]:
    """Writes the texts; the pairs that were planted."""
    planted = []
    with open(path, "w", encoding="utf-8") as file:
        for number, (text, source) in enumerate(texts):
            file.write(json.dumps(text, ensure_ascii=False) + "\n")
            if source >= 0:
                planted.append((source, number))
    return planted


def _read(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8") as file:
        yield from map(json.loads, file)


def _in_fresh_process(name: str, texts: Path, similar: float, folder: Path) -> dict[str, Any]:
    """Seconds, peak memory and groups of one library."""
    out = folder / f"{name}.json"
    code = f"from tools.benchmark.dedup import work; work({name!r}, {str(texts)!r}, {similar!r}, {str(out)!r})"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"{name} failed: {last}", file=sys.stderr)
        return {"failed": last, "groups": []}
    return json.loads(out.read_text())


def work(name: str, texts_file: str, similar: float, out: str) -> None:
    """What the fresh process does."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    groups = RUNS[name](Path(texts_file), similar)
    result = {
        "version": "" if name == "ours" else importlib.metadata.version(name),
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
        "memory_before_mb": round(before / 1000),
        "records_in_groups": sum(map(len, groups)),
        "groups": groups,
    }
    Path(out).write_text(json.dumps(result))


def _ours(path: Path, similar: float) -> list[list[int]]:
    texts = list(_read(path))
    signatures_NP = np.empty((len(texts), dedup.PERMUTATIONS), np.uint32)
    with Progress("ours: signatures", "texts", len(texts)) as progress:
        for number, text in enumerate(texts):
            signatures_NP[number] = dedup.signature(text)
            progress.add()
    return dedup.near_duplicate_groups(signatures_NP, lambda a, b: dedup.jaccard(texts[a], texts[b]), similar)


def _datasketch(path: Path, similar: float) -> list[list[int]]:
    """Its LSH index, as its documentation builds it; neighbours are joined as we join ours."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=similar, num_perm=dedup.PERMUTATIONS)
    groups: dedup.UnionFind[int] = dedup.UnionFind()
    count = 0
    for number, text in enumerate(_read(path)):
        sketch = MinHash(num_perm=dedup.PERMUTATIONS, seed=1)
        sketch.update_batch([shingle.encode() for shingle in dedup.shingles(text)])
        for other in index.query(sketch):
            groups.union(other, number)
        index.insert(number, sketch, check_duplication=False)
        count += 1
    return _sets(groups, count)


def _datatrove(path: Path, similar: float) -> list[list[int]]:
    """Its pipeline on the local disk, with our bands and words; what shares a band is a duplicate to it."""
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Words(WordTokenizer):
        """Words at white space; datatrove has put the text in lower case and without punctuation."""

        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            raise NotImplementedError

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            raise NotImplementedError

    rows = dedup.band_rows(similar)
    bands = dedup.PERMUTATIONS // rows
    hashing = HashConfig(hash_fc="sha1")  # xxhash 4 takes no text, which is what datatrove 0.10 gives it
    config = MinhashConfig(dedup.SHINGLE_WORDS, num_buckets=bands, hashes_per_bucket=rows, hash_config=hashing)

    def documents(data: object, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for number, text in enumerate(_read(path)):
            yield Document(text=text, id=str(number))

    with tempfile.TemporaryDirectory() as folder:
        steps: list[tuple[list[Any], int]] = [
            ([documents, MinhashDedupSignature(f"{folder}/signatures", config, Words())], 1),
            ([MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config)], bands),
            ([MinhashDedupCluster(f"{folder}/buckets", f"{folder}/removed", config=config, save_cluster_id=True)], 1),
        ]
        for number, (pipeline, tasks) in enumerate(steps):
            log = f"{folder}/log{number}"
            LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=log).run()
        return _datatrove_groups(Path(folder) / "removed")


def _datatrove_groups(folder: Path) -> list[list[int]]:
    """Rows with their clusters: pairs of 32-bit numbers in the order of the documents."""
    groups: dict[int, list[int]] = {}
    for path in sorted(folder.glob("*.clusters")):
        for row, cluster in np.fromfile(path, np.uint32).reshape(-1, 2).tolist():
            groups.setdefault(cluster, []).append(row)
    return [sorted(rows) for rows in groups.values() if len(rows) > 1]


RUNS: dict[str, Callable[[Path, float], list[list[int]]]] = {
    "ours": _ours,
    "datasketch": _datasketch,
    "datatrove": _datatrove,
}


def _sets(groups: dedup.UnionFind[int], count: int) -> list[list[int]]:
    members: dict[int, list[int]] = {}
    for row in range(count):
        members.setdefault(groups.find(row), []).append(row)
    return [rows for rows in members.values() if len(rows) > 1]


def _exactly_similar(
    texts: list[str], planted: list[tuple[int, int]], found: dict[str, list[list[int]]], args: argparse.Namespace
) -> dict[tuple[int, int], float]:
    """The exact similarity of a sample of pairs: planted ones, ones that a library grouped, random ones."""
    draw = random.Random(0)
    pairs = set(draw.sample(planted, min(len(planted), args.sample // 2)))
    grouped = []
    for groups in found.values():
        for rows in groups:
            few = rows if len(rows) <= CLUSTER_PAIRS else draw.sample(rows, CLUSTER_PAIRS)
            grouped += [(min(pair), max(pair)) for pair in itertools.pairwise(few)]
    pairs.update(draw.sample(grouped, min(len(grouped), args.sample)))
    everyone = range(len(texts))
    pairs.update((min(pair), max(pair)) for pair in (draw.sample(everyone, 2) for _ in range(args.sample // 10)))
    with Progress("exact similarities", "pairs", len(pairs)) as progress:
        return {pair: dedup.jaccard(texts[pair[0]], texts[pair[1]]) for pair in progress.track(sorted(pairs))}


def _recall(groups: list[list[int]], similar: dict[tuple[int, int], float], count: int, threshold: float) -> float:
    """The share of the similar pairs that are in one group."""
    group_of = np.full(count, -1)
    for number, rows in enumerate(groups):
        group_of[rows] = number
    true = [pair for pair, value in similar.items() if value >= threshold]
    return round(sum(group_of[a] == group_of[b] != -1 for a, b in true) / max(1, len(true)), 5)


def _precision(groups: list[list[int]], texts: list[str], threshold: float, sample: int) -> float:
    """The share of grouped records (a sample) that are similar to another one of their group."""
    draw = random.Random(1)
    members = [(row, rows) for rows in groups for row in rows]
    chosen = draw.sample(members, min(len(members), sample))
    right = 0
    for row, rows in chosen:
        others = rows if len(rows) <= COMPARED_MEMBERS else draw.sample(rows, COMPARED_MEMBERS)
        right += any(other != row and dedup.jaccard(texts[row], texts[other]) >= threshold for other in others)
    return round(right / max(1, len(chosen)), 5)
