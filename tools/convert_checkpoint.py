"""Hugging Face models in and out, streamed tensor by tensor and bit for bit.

    python -m tools.convert_checkpoint import HF_DIR OUT    a folder that a run begins from: --gin.INIT_FROM=OUT
    python -m tools.convert_checkpoint export RUN OUT       a Hugging Face model of a run, or of an imported one
    python -m tools.convert_checkpoint export RUN OUT --adapter    the adapters that a run trained, for PEFT
    python -m tools.convert_checkpoint verify A B           what differs between two of them
    python -m tools.convert_checkpoint verify A --transformers    logits against those of transformers

What was imported goes out as it came in: dtype and file of every tensor, config fields, tokenizer and other files; a
run's export has a model card besides. Adapters (LoRA) are added to the weights, unless asked for by themselves. OUT
appears when it is whole. After an interruption the same command begins again; an export goes on with the weight files
that are whole.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import Progress, duration
from tools._command import run

if TYPE_CHECKING:
    from hephaestus_jax.hf.adapters import AdapterBase
    from hephaestus_jax.hf.exporting import Read


def main(arguments: Sequence[str] | None = None) -> None:
    """Does one of the three; `verify` ends with exit status 1 if it finds differences."""
    args = _parser().parse_args(arguments)
    {"import": import_model, "export": export_run, "verify": verify}[args.action](args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.convert_checkpoint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True)
    reading = actions.add_parser("import", help="from a Hugging Face model to a folder that a run begins from")
    reading.add_argument("source", metavar="HF_DIR", help="folder with config.json and *.safetensors")
    reading.add_argument("out", metavar="OUT", help="new folder")
    reading.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16", "as_stored"],
        help="of the parameters; ComputeConfig.param_dtype of the run (default: %(default)s)",
    )
    writing = actions.add_parser("export", help="from a run to a Hugging Face model")
    writing.add_argument("source", metavar="RUN", help="directory of a run, or an imported model")
    writing.add_argument("out", metavar="OUT", help="new folder")
    writing.add_argument("--vocabulary", help="vocabulary file or folder, of a run whose line began from scratch")
    writing.add_argument(
        "--chat", help="chat family of its template, or none (default: llama3), of a run whose line began from scratch"
    )
    writing.add_argument("--licence", default="", help="of the new model, for its card (default: the base model's)")
    writing.add_argument("--adapter", action="store_true", help="write adapters by themselves, in PEFT's format")
    writing.add_argument(
        "--base", default="", help="with --adapter, model that they are for (default: what the run began from)"
    )
    writing.add_argument("--no_card", action="store_true", help="write no model card (README.md) of the run")
    checking = actions.add_parser("verify", help="compares tensors bit for bit, config fields and other files")
    checking.add_argument("a", metavar="A", help="Hugging Face model, run or imported model")
    checking.add_argument("b", metavar="B", nargs="?", help="another one")
    checking.add_argument("--transformers", action="store_true", help="compare logits of A with those of transformers")
    for action in (writing, checking):
        action.add_argument("--step", type=int, help="checkpoint of the run (default: its newest)")
        action.add_argument(
            "--dtype",
            default="as_read",
            choices=["as_read", "float32", "bfloat16", "float16"],
            help="of the weights: as the model came in, or as the run has them (default: %(default)s)",
        )
        action.add_argument(
            "--unpad_vocabulary", action="store_true", help="without embedding rows beyond the tokenizer's ids"
        )
    return parser


# ---- import


def import_model(args: argparse.Namespace) -> None:
    """Writes OUT/checkpoints/0 and OUT/huggingface."""
    import jax

    from hephaestus_jax.checkpoints import Checkpointer
    from hephaestus_jax.config import CheckpointConfig
    from hephaestus_jax.hf.checkpoint import open_checkpoint
    from hephaestus_jax.hf.folders import new_folder
    from hephaestus_jax.hf.importing import import_parameters, narrowed
    from hephaestus_jax.hf.origin import keep_origin
    from hephaestus_jax.run_directory import CHECKPOINTS, HUGGINGFACE

    started = time.monotonic()
    checkpoint = open_checkpoint(args.source)
    abstract = _abstract_parameters(checkpoint, args.dtype)
    _say(*checkpoint.notes)
    if rounded := narrowed(checkpoint, abstract):
        _say(f"{len(rounded)} tensors are rounded, the first of them {rounded[0]}; --dtype as_stored rounds none")
    with new_folder(args.out) as folder:
        origin = keep_origin(args.source, folder / HUGGINGFACE)
        _say(*(f"not kept: {left}" for left in origin.left_out))
        params = import_parameters(args.source, abstract)
        facts = {"imported_from": os.path.abspath(args.source), "dtype": args.dtype}
        with _written(folder / CHECKPOINTS, _bytes_of(abstract)):
            checkpointer = Checkpointer(folder / CHECKPOINTS, CheckpointConfig(), piece_bytes=0)
            try:
                checkpointer.save(0, {"params": params}, facts, force=True)
            finally:
                checkpointer.close()
    dtypes = {leaf.dtype.name for leaf in jax.tree.leaves(abstract)}
    begin = f"begin a run with --gin.INIT_FROM={args.out}"
    if len(dtypes) > 1:
        begin = f"for export and evaluation only, since its dtypes are mixed ({', '.join(sorted(dtypes))})"
    elif dtypes != {"float32"}:
        begin += f" --gin.ComputeConfig.param_dtype={dtypes.pop()}"
    _done("imported", checkpoint.weight_bytes, started, f"{args.out}; {begin}")


def _abstract_parameters(checkpoint: Any, dtype: str) -> Any:
    import jax

    from hephaestus_jax.hf.importing import stored_dtypes
    from hephaestus_jax.model.decoder import abstract_parameters

    if dtype != "as_stored":
        return abstract_parameters(checkpoint.model, dtype)  # type: ignore[arg-type]
    stored = stored_dtypes(checkpoint)

    def as_stored(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, stored[jax.tree_util.keystr(path, simple=True, separator="/")])

    return jax.tree_util.tree_map_with_path(as_stored, abstract_parameters(checkpoint.model))


def _bytes_of(abstract: Any) -> int:
    import jax

    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract))


@contextmanager
def _written(folder: Path, total: int) -> Iterator[None]:
    """Shows how many bytes of `total` lie in `folder`, which a library fills in the background."""
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(1.0):
            progress.add(max(0, min(_size(folder), total) // 1_000_000 - progress.count))

    with Progress("write", "MB", total // 1_000_000) as progress:
        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
            progress.count = total // 1_000_000
        finally:
            ended.set()
            follower.join()


def _size(folder: Path) -> int:
    """Bytes of the files below `folder`, in which others come and go."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.stat(os.path.join(place, name)).st_size
    return size


# ---- export


class _Source:
    """The parameters of a run or of an imported model, and what an export of them needs.

    Of a checkpoint nothing but parameters is read, and of these one tensor at a time: no optimizer is built.
    """

    def __init__(self, path: str, step: int | None, dtype: str) -> None:
        from hephaestus_jax.checkpoints.reading import open_arrays
        from hephaestus_jax.hf.origin import load_origin
        from hephaestus_jax.starting_point import open_starting_point

        start = open_starting_point(path)
        if start.kind == "huggingface":
            raise UserError(f"{path} is a Hugging Face model already; give a run, or what import made")
        self.kind, self.model, self.vocabulary = start.kind, start.model, start.vocabulary
        self.arrays = open_arrays(start.checkpoints, step)
        self.origin = load_origin(start.origin) if start.origin else None
        self.read: Read = self.unmerged
        self.lora, self.run = start.lora, start.path
        if self.lora is not None:
            from hephaestus_jax.hf.adapters import merged

            self.read = merged(self.unmerged, self.lora)
        self.dtype: Any = None if dtype == "as_read" else dtype
        if self.dtype is None and self.origin is None:
            from hephaestus_jax.model.lora import A, B

            weights = [name for name in self.arrays.names if name.startswith("params/") and not name.endswith((A, B))]
            dtypes = {self.arrays.dtype(name).name for name in weights}
            self.dtype = dtypes.pop() if len(dtypes) == 1 else "float32"

    def unmerged(self, path: str, index: tuple[int, ...]) -> np.ndarray:
        """A parameter, or one layer or expert of it, as it is in the checkpoint."""
        return self.arrays.read(f"params/{path}", index)

    def unpad(self, size: int | None) -> None:
        """Leaves out the rows beyond a vocabulary of that size, by default the origin's tokenizer's."""
        from hephaestus_jax.hf.vocabulary_growth import unpadded
        from hephaestus_jax.hf.vocabulary_size import tokenizer_size

        if size is None and self.origin is not None:
            size = tokenizer_size(self.origin.folder)
        if size is None:
            raise UserError("--unpad_vocabulary needs a tokenizer.json beside the model, to know its number of ids")
        self.model, self.read, self.origin = unpadded(self.model, self.read, self.origin, size)


def export_run(args: argparse.Namespace) -> None:
    """Writes a Hugging Face model, or adapters for one."""
    from hephaestus_jax.hf.exporting import export_model

    started = time.monotonic()
    source = _Source(args.source, args.step, args.dtype)
    if args.adapter:
        return _export_adapter(source, args, started)
    if args.base:
        raise UserError("--base is the model that adapters are for; give --adapter too, or leave it out")
    if source.origin is not None:
        files, ids, size = _files_for_origin(source.origin, args), None, None
    else:
        files, ids, size = _files_from_scratch(source, args)
    if args.unpad_vocabulary:
        source.unpad(size)
    if source.kind == "run" and not args.no_card:
        files |= _card(source, args)
    exported = export_model(
        args.out, source.model, source.read, source.origin, source.dtype,
        files=files, ids=ids, source=f"{source.arrays.digest} {source.lora!r}",
    )  # fmt: skip
    _say(*exported.notes)
    step = f"step {source.arrays.step} of {args.source} as"
    _done("exported", exported.weight_bytes, started, f"{step} {args.out}")


def _export_adapter(source: _Source, args: argparse.Namespace, started: float) -> None:
    from hephaestus_jax.hf.adapters import export_adapter
    from hephaestus_jax.hf.families import family_of

    if source.lora is None:
        raise UserError(f"{args.source} trained no adapters; leave out --adapter")
    for flag in ("vocabulary", "chat", "licence", "no_card", "unpad_vocabulary"):
        if getattr(args, flag):
            raise UserError(f"adapters go out without files of a model; leave out --{flag}")
    base = _base_of(source, args.base)
    family = family_of(source.model) if source.origin is None else source.origin.config.family
    dtype: Any = "float32" if args.dtype == "as_read" else args.dtype
    size = export_adapter(args.out, source.model, source.unmerged, source.lora, family, base, dtype)
    whose = f"adapters for {base.name}" if base.name else "adapters"
    _done("exported", size, started, f"{whose}, step {source.arrays.step} of {args.source}, as {args.out}")


def _base_of(source: _Source, name: str) -> AdapterBase:
    """What the run began from, as PEFT finds it: a model on the Hub whose cache it was read from, or a folder."""
    from hephaestus_jax.checkpoints.reading import open_arrays
    from hephaestus_jax.data.storage import Storage
    from hephaestus_jax.hf.adapters import AdapterBase
    from hephaestus_jax.hf.vocabulary_growth import hub_name
    from hephaestus_jax.run_directory import RUN
    from hephaestus_jax.starting_point import open_starting_point

    if name:
        return AdapterBase(name)
    path = Storage(source.run).read_json(RUN)["identity"]["init_from"]
    with suppress(UserError):  # it may be gone
        start = open_starting_point(path)
        if start.kind == "run":
            _say(f"the adapters are for the model of {path}: export that too, and give it with --base")
            return AdapterBase()
        if start.kind == "imported":
            path = open_arrays(start.checkpoints).facts["imported_from"]
    hub, revision = hub_name(path)
    return AdapterBase(hub or path, revision)


def _files_for_origin(origin: Any, args: argparse.Namespace) -> dict[str, bytes]:
    from hephaestus_jax.hf.tokenizer_files import missing_tokenizer_json

    for flag in ("vocabulary", "chat"):
        if getattr(args, flag) is not None:
            raise UserError(f"{args.source} has tokenizer files from {origin.folder}; leave out --{flag}")
    made = missing_tokenizer_json(origin.folder)
    _say(*made.notes)
    return dict(made.files)


def _card(source: _Source, args: argparse.Namespace) -> dict[str, bytes]:
    """The model card of a run, and what becomes of the base model's."""
    from hephaestus_jax.reports.model_card import card_files

    made = card_files(args.source, source.arrays, source.origin, args.licence, source.model)
    _say(*made.notes)
    source.origin = made.origin
    return dict(made.files)


def _files_from_scratch(source: _Source, args: argparse.Namespace) -> tuple[dict[str, bytes], Any, int]:
    """Tokenizer files, the ids of special tokens, and how many ids there are."""
    from hephaestus_jax.data.vocabularies import load_vocabulary
    from hephaestus_jax.hf.tokenizer_files import token_ids, tokenizer_files

    if args.vocabulary is None:
        raise UserError(
            f"{args.source} began from scratch, so that there are no tokenizer files to carry along: give the"
            " vocabulary of its mixture with --vocabulary, and the chat family with --chat"
        )
    vocabulary, known = load_vocabulary(args.vocabulary), source.vocabulary
    if known is not None and vocabulary.digest != known:
        raise UserError(
            f"{vocabulary.path} has digest {vocabulary.digest[:12]}, the run was trained with a vocabulary of digest"
            f" {known[:12]}; give that one"
        )
    if vocabulary.size > source.model.vocab_size:
        raise UserError(f"{vocabulary.path} has {vocabulary.size:,} ids, the model {source.model.vocab_size:,}")
    chat = args.chat or "llama3"
    made = tokenizer_files(vocabulary, chat, source.model.max_positions)
    _say(*made.notes)
    return dict(made.files), token_ids(vocabulary, chat), vocabulary.size


# ---- verify


def verify(args: argparse.Namespace) -> None:
    """Prints differences and ends with exit status 1, or says that there are none."""
    if args.b is None and not args.transformers:
        raise UserError("verify compares two models: give another one, or --transformers")
    differs = args.b is not None and _differs(args)
    if args.transformers:
        differs |= _logits_differ(args.a)
    if differs:
        raise SystemExit(1)


def _differs(args: argparse.Namespace) -> bool:
    from hephaestus_jax.hf.compare import compare_models
    from hephaestus_jax.starting_point import open_starting_point

    started = time.monotonic()
    views = [_view(path, args) for path in (args.a, args.b)]
    if any(open_starting_point(path).kind == "run" for path in (args.a, args.b)):
        views = [_without_cards(view) for view in views]  # a run has none, its export has
    a, b = _without_made_tokenizers(*views)
    count = 0
    for difference in compare_models(a, b):
        print(difference, flush=True)
        count += 1
    if count:
        print(f"{args.a} and {args.b} differ in {count:,} places")
        return True
    size = sum(entry.stop - entry.start for entry in a.tensors.values())
    compared = [f"{len(a.tensors)} tensors bit for bit"]
    if a.config is not None and b.config is not None and a.files is not None:
        compared += [f"{len(a.config)} config fields", f"{len(a.files)} files"]
    _done("compared", size, started, f"{args.a} and {args.b} are the same ({', '.join(compared)})")
    return False


def _view(path: str, args: argparse.Namespace) -> Any:
    from hephaestus_jax.hf.compare import view_export, view_folder
    from hephaestus_jax.starting_point import open_starting_point

    if open_starting_point(path).kind == "huggingface":
        return view_folder(path)
    source = _Source(path, args.step, args.dtype)
    if args.unpad_vocabulary:
        source.unpad(None)
    return view_export(path, source.model, source.read, source.origin, source.dtype)


def _without_cards(view: Any) -> Any:
    if view.files is None:
        return view
    kept = {n: file for n, file in view.files.items() if n != "README.md" and not n.startswith("BASE_MODEL_CARD")}
    return replace(view, files=kept)


def _without_made_tokenizers(a: Any, b: Any) -> Iterator[Any]:
    """Both views without a `tokenizer.json` that one has and that was made from the other's SentencePiece model."""
    from hephaestus_jax.hf.config_files import CONFIG
    from hephaestus_jax.hf.tokenizer_files import TOKENIZER_JSON, missing_tokenizer_json

    for one, other in ((a, b), (b, a)):
        if other.files and one.files and TOKENIZER_JSON in one.files.keys() - other.files.keys():
            made = missing_tokenizer_json(other.files[CONFIG].parent).files.get(TOKENIZER_JSON)
            if made == one.files[TOKENIZER_JSON].read_bytes():
                _say(f"{TOKENIZER_JSON} in {one.name} was made from the SentencePiece model of {other.name}")
                one = replace(one, files={name: file for name, file in one.files.items() if name != TOKENIZER_JSON})
        yield one


def _logits_differ(path: str) -> bool:
    from hephaestus_jax.hf.compare import CLOSE, compare_with_transformers
    from hephaestus_jax.starting_point import open_starting_point

    if open_starting_point(path).kind != "huggingface":
        raise UserError(f"{path} is no Hugging Face model; export it, and compare that with transformers")
    found = compare_with_transformers(path)
    allowed = CLOSE * max(1.0, found.largest_logit)
    verdict = "the same" if found.largest_difference <= allowed else "NOT the same"
    layer = f"; first layer that differs: {found.differing_layer}" if found.differing_layer else ""
    print(
        f"logits of {path} here and in transformers are {verdict}: {found.logits:,} logits at random tokens in float32,"
        f" rows of {found.length:,} tokens, largest difference {found.largest_difference:.2e} ({allowed:.1e} is"
        f" allowed), largest logit {found.largest_logit:.2f}{layer}"
    )
    return found.largest_difference > allowed


# ---- words


def _say(*notes: str) -> None:
    for note in notes:
        print(f"note: {note}", flush=True)


def _done(what: str, size: int, started: float, words: str) -> None:
    seconds = time.monotonic() - started
    megabytes = size / 1e6
    print(f"{what} {megabytes:,.1f} MB in {duration(seconds)} ({megabytes / max(seconds, 1e-9):,.1f} MB/s): {words}")


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # values only pass through; an accelerator may not hold them
    run(main)
