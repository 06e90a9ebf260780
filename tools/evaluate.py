"""Evaluates models on unseen APIs, code and text: held-out losses per record, ranking of calls, generated samples.

    python -m tools.evaluate RUN HF_DIR ... --mixture DIR --corpus DIR --vocabulary PATH

A model is a run, an imported model or a Hugging Face model. Each gets an evaluation.json in its own folder (or
NAME.json in --out), which `python -m tools.report` reads. Repeat the command to go on after an interruption: what is
there already for the same weights and inputs is kept.
"""

from __future__ import annotations

import argparse
import os
import sys

from hephaestus_jax.errors import UserError
from tools._command import run


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folder of a run, or of a Hugging Face model")
    parser.add_argument("--mixture", required=True, help="mixture.json, or its folder: its validation rows are read")
    parser.add_argument("--vocabulary", required=True, help="tokenizer of the mixture and of all models")
    parser.add_argument("--corpus", default="", help="that the mixture was built from; without it no calls are ranked")
    chat = os.environ.get("HEPHAESTUS_CHAT", "llama3")
    parser.add_argument("--chat", default=chat, help="chat family of the trajectories (default: %(default)s)")
    parser.add_argument("--max_rows", type=int, default=64, help="rows of each slice; 0 for all (default: %(default)s)")
    parser.add_argument(
        "--max_calls", type=int, default=100, help="calls to rank; 0 for all, -1 for none (default: %(default)s)"
    )
    parser.add_argument("--samples", type=int, default=2, help="prompts to generate from (default: %(default)s)")
    parser.add_argument("--sample_tokens", type=int, default=48, help="tokens of each text (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=8, help="rows at a time (default: %(default)s)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: float32 on CPUs, else bfloat16")
    parser.add_argument("--seed", type=int, default=0, help="of corruptions and samples (default: %(default)s)")
    parser.add_argument("--out", help="folder for NAME.json of each model, instead of evaluation.json in its own")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Evaluates what is not evaluated yet, and prints all figures."""
    args = vars(_arguments(arguments))
    from hephaestus_jax.evals import evaluation_table
    from hephaestus_jax.evals.evaluation import EvaluationOptions, Evaluator
    from hephaestus_jax.evals.evaluation_files import EvaluationFile, model_facts
    from hephaestus_jax.starting_point import open_starting_point

    paths, folder = args.pop("models"), args.pop("out")
    starts = [open_starting_point(path) for path in paths]
    files = [EvaluationFile.of(start, folder) for start in starts]
    if len(set(map(str, files))) < len(files):
        raise UserError("two models would be written to one file; name every model once, or leave out --out")
    evaluator = Evaluator(EvaluationOptions(**args))
    for start in starts:
        evaluator.check(start)
    found = {}
    names = [os.path.basename(start.path.rstrip("/")) for start in starts]
    names = names if len(set(names)) == len(names) else paths
    for number, (name, start, file) in enumerate(zip(names, starts, files, strict=True), 1):
        facts = model_facts(start)
        if (value := file.read(facts, evaluator.inputs)) is not None:
            print(f"{file} is kept: same weights, same inputs", file=sys.stderr)
        else:
            print(f"[{number}/{len(starts)}] {start.kind} {start.path}: {facts['parameters']:,} parameters", flush=True)
            value = evaluator.evaluate(start, facts, name)
            file.write(value)
            print(f"wrote {file} after {value['seconds']:.1f} s", flush=True)
        found[name] = value
    print(evaluation_table.samples(found))
    print(evaluation_table.table(found))
    print(evaluation_table.notes(found))


if __name__ == "__main__":
    run(main)
