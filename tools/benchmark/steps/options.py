"""The options by which benchmarks of a step are told the model and how it is computed."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, get_args

from hephaestus_jax.config import MODEL_PARTS, REMAT_POLICIES, DType, ModelConfig
from hephaestus_jax.errors import UserError
from tools.benchmark.steps.spec import StepSpec

_DTYPES = get_args(DType)
_KINDS: dict[Any, Any] = {"int": int, "float": float, "bool": lambda text: bool(int(text))}


def add_model(parser: argparse.ArgumentParser, default: str) -> None:
    """--gin_file and --sizes."""
    parser.add_argument("--gin_file", default=default, help="the model (default: %(default)s)")
    parser.add_argument("--sizes", default="", help="the model as NAME=NUMBER,…, fields of ModelConfig; no gin needed")


def add_step(parser: argparse.ArgumentParser) -> None:
    """Rows, precision and backends of our step."""
    parser.add_argument("--rows", type=int, default=4, help="rows of a batch (default: %(default)s)")
    parser.add_argument("--length", type=int, default=512, help="tokens of a row (default: %(default)s)")
    parser.add_argument("--segments", type=int, default=4, help="texts packed into a row (default: %(default)s)")
    parser.add_argument("--platform", choices=["cpu", "gpu"], default="cpu", help="default: %(default)s")
    parser.add_argument("--dtype", choices=_DTYPES, default="float32", help="of computing (default: %(default)s)")
    parser.add_argument("--param_dtype", choices=_DTYPES, default="float32", help="default: %(default)s")
    parser.add_argument("--moment_dtype", choices=_DTYPES, default="float32", help="first moment's (default: float32)")
    parser.add_argument("--attention", default="chunked", help="our attention backend (default: %(default)s)")
    parser.add_argument("--remat", default="none", help=f"ours: {', '.join(REMAT_POLICIES)} (default: %(default)s)")
    parser.add_argument("--loss_chunk", type=int, default=256, help="ours: positions at a time (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and rows (default: %(default)s)")


def spec_from(args: argparse.Namespace, **changes: Any) -> StepSpec:
    """The step that the options and `changes` describe."""
    names = {field.name for field in dataclasses.fields(StepSpec)} & set(vars(args))
    given = {name: getattr(args, name) for name in names}
    return StepSpec(**{**given, **changes})


def model_from(args: argparse.Namespace) -> ModelConfig:
    """The model of --sizes, or else of --gin_file.

    Raises:
        UserError: there is no such file or field, or gin is not installed.
    """
    return _from_sizes(args.sizes) if args.sizes else model_of_file(args.gin_file)


def model_of_file(path: str) -> ModelConfig:
    """The model of a gin file."""
    try:
        from hephaestus_jax.gin_files import load_gin
    except ImportError as error:
        raise UserError(f"{path} needs {error.name}, which is not installed; give the model by --sizes") from error
    return load_gin(ModelConfig, path, also=MODEL_PARTS)


def _from_sizes(words: str) -> ModelConfig:
    kinds = {field.name: _KINDS[field.type] for field in dataclasses.fields(ModelConfig) if field.type in _KINDS}
    values: dict[str, Any] = {"name": "given by --sizes"}
    for part in words.split(","):
        name, _, number = part.partition("=")
        if name not in kinds:
            raise UserError(f"--sizes has {part!r}; write NAME=NUMBER with a name of: {', '.join(kinds)}")
        try:
            values[name] = kinds[name](number)
        except ValueError:
            raise UserError(f"--sizes has {part!r}; {number!r} is not such a number") from None
    try:
        return ModelConfig(**values)
    except TypeError as error:
        raise UserError(f"--sizes: {str(error).partition(') ')[2]}") from None
