"""Tokenising records against the tokenizer's own `encode_batch`, on one core, in alternating rounds.

Both sides get the same records: the tokenizer the bare texts in one call per batch, our side their renderings, from
which it makes tokens, loss weights and carries as the cache builder does.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import util
from pathlib import Path
from typing import Any

from hephaestus_jax.data.tokenization import tokenize
from hephaestus_jax.data.vocabularies import Vocabulary, load_vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import SLICES, Document, MessageAction, Provenance, Record, TextObservation, Trajectory
from hephaestus_jax.formats.rendering import RecordRenderer
from hephaestus_jax.formats.store import Corpus
from hephaestus_jax.progress import Progress

BATCH_RECORDS = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument(
        "--vocabulary",
        action="append",
        help="vocabulary file or directory, may be repeated; by default one trained on the spot and, if `llama-models`"
        " is installed, Llama 3's",
    )
    parser.add_argument("--corpus", help="corpus directory; by default the standard library's sources")
    parser.add_argument("--chat", default="llama3", help="chat family of trajectories (default: %(default)s)")
    parser.add_argument("--megabytes", type=float, default=8.0, help="text per round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each side (default: %(default)s)")
