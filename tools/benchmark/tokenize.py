"""Tokenising renderings against the tokenizer's own `encode_batch`, on one core, in alternating rounds.

Rates are per second of processor time, so that they hold on a busy machine too; medians over the rounds.

Both sides get the same records in the same batches: the tokenizer the texts, to make ids of; ours the renderings, to
make ids, loss weights and carries of, as the cache builder does. Half of the default material is source files, half
the same sources cut into chat turns, which have a change of weight every few hundred characters.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path
from typing import Any

import sentencepiece

from hephaestus_jax.data.sentencepiece_training import VocabularyConfig, train_sentencepiece
from hephaestus_jax.data.sentencepiece_vocabulary import SentencePieceVocabulary
from hephaestus_jax.data.task import BATCH_RECORDS
from hephaestus_jax.data.tokenization import tokenize
from hephaestus_jax.data.tokenizer_json import TokenizerJsonVocabulary
from hephaestus_jax.data.vocabularies import Vocabulary, load_vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import Document, MessageAction, Provenance, Record, TextObservation, Trajectory
from hephaestus_jax.formats.rendering import RecordRenderer
from hephaestus_jax.formats.spans import Rendering
from hephaestus_jax.formats.store import Corpus
from hephaestus_jax.progress import Progress
from tools.train_vocabulary import interleaved_records, plain_texts

_HERE = Provenance("Python standard library", sysconfig.get_python_version(), "PSF-2.0", host="python.org")
_TURN_CHARACTERS = 400
_TRAINED_SIZE = 16_384


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument(
        "--vocabulary",
        help="vocabulary file or directory; by default one trained on the spot and, with `llama-models`, Llama 3's",
    )
    parser.add_argument("--corpus", help="corpus directory; by default the standard library's sources")
    parser.add_argument("--chat", default="llama3", help="chat family of trajectories (default: %(default)s)")
    parser.add_argument("--megabytes", type=float, default=8.0, help="text of a round (default: %(default)s MB)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each side (default: %(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures every vocabulary; the worst ratio stands on top."""
    renderer = RecordRenderer(chat=args.chat)
    records = interleaved_records(Corpus(Path(args.corpus))) if args.corpus else standard_library()
    renderings, texts, total = [], [], 0.0
    for record in records:
        try:
            rendering = renderer.render(record)
        except UserError:
            continue  # a record without a form, which the cache builder counts
        renderings.append(rendering)
        texts.append(rendering.text)
        total += len(texts[-1].encode())
        if total >= args.megabytes * 1e6:
            break
    if not texts or args.rounds < 1:
        raise UserError("nothing to measure: give a corpus with training records, and one round at least")
    with tempfile.TemporaryDirectory() as folder, one_core():
        found = {}
        for name, path in vocabularies(args, renderer, folder).items():
            found[name] = _measure(load_vocabulary(path), name, renderings, texts, args.rounds)
    ratios = [entry["ratio_of_encode_batch"] for entry in found.values()]
    return {
        "worst_ratio_of_encode_batch": min(ratios),
        "text_megabytes_per_round": round(total / 1e6, 2),
        "records": len(texts),
        "rounds": args.rounds,
        "cores": 1,
        "vocabularies": found,
    }


def _measure(
    vocabulary: Vocabulary, name: str, renderings: list[Rendering], texts: list[str], rounds: int
) -> dict[str, Any]:
    encode_batch = own_encode_batch(vocabulary)
    batches = [slice(start, start + BATCH_RECORDS) for start in range(0, len(texts), BATCH_RECORDS)]
    tokens = sum(len(t.tokens_T) for batch in batches for t in tokenize(renderings[batch], vocabulary))
    theirs, ours = [], []
    with Progress(f"{name}: measuring", "rounds", rounds) as progress:
        for _ in progress.track(range(rounds)):
            theirs.append(_seconds(lambda batch: encode_batch(texts[batch]), batches))
            ours.append(_seconds(lambda batch: tokenize(renderings[batch], vocabulary), batches))
    total = sum(len(text.encode()) for text in texts)
    own, tokenizer = statistics.median(ours), statistics.median(theirs)
    return {
        "tokens": tokens,
        "bytes_per_token": round(total / tokens, 3),
        "tokenize_tokens_per_core_s": round(tokens / own),
        "tokenize_bytes_per_core_s": round(total / own),
        "encode_batch_tokens_per_core_s": round(tokens / tokenizer),
        "encode_batch_bytes_per_core_s": round(total / tokenizer),
        "ratio_of_encode_batch": round(statistics.median(t / o for t, o in zip(theirs, ours, strict=True)), 3),
    }


def _seconds(work: Callable[[slice], object], batches: list[slice]) -> float:
    start = time.process_time()
    for batch in batches:
        work(batch)
    return time.process_time() - start


def own_encode_batch(vocabulary: Vocabulary) -> Callable[[list[str]], object]:
    """The rate to be measured against."""
    if isinstance(vocabulary, SentencePieceVocabulary):
        processor = sentencepiece.SentencePieceProcessor(model_proto=Path(vocabulary.path).read_bytes())
        return lambda texts: processor.encode(texts, num_threads=1)
    assert isinstance(vocabulary, TokenizerJsonVocabulary)
    tokenizer = vocabulary.tokenizer  # the same object: two copies of one model can differ by a third in speed
    return lambda texts: tokenizer.encode_batch(texts, add_special_tokens=False)


def vocabularies(args: argparse.Namespace, renderer: RecordRenderer, folder: str) -> dict[str, str]:
    """Paths by name."""
    if args.vocabulary:
        return {Path(args.vocabulary).name: args.vocabulary}
    config = VocabularyConfig(_TRAINED_SIZE, renderer.controls, max_bytes=4_000_000)
    sample = itertools.islice(standard_library(), 0, None, 2)
    found = {"trained": train_sentencepiece(plain_texts(sample, renderer), folder, config).path}
    llama = util.find_spec("llama_models")
    if llama and llama.origin:
        model = Path(llama.origin).parent / "llama3" / "tokenizer.model"
        found |= {"llama3": str(model)} if model.exists() else {}
    return found


def standard_library() -> Iterator[Record]:
    """Source files, each as code and as a conversation."""
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = path.read_text("utf-8", "replace")
        yield Document(text, "code", _HERE, "python")
        parts = [text[i : i + _TURN_CHARACTERS] for i in range(0, len(text), _TURN_CHARACTERS)]
        steps = [MessageAction(part) if i % 2 else TextObservation(part, "user") for i, part in enumerate(parts)]
        yield Trajectory(tuple(steps), _HERE)


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keeps this process, and the threads it starts, on one core where the system lets it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
