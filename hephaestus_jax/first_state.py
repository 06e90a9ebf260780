"""Where a run goes on, or begins: its newest checkpoint, another run's, a Hugging Face model, or its seed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from hephaestus_jax.checkpoints import Checkpointer
from hephaestus_jax.checkpoints.processes import on_first
from hephaestus_jax.config import TrainConfig
from hephaestus_jax.data.identity import VocabularyIdentity
from hephaestus_jax.distributed import is_main, say
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.origin import keep_origin
from hephaestus_jax.model.lora import trained_and_frozen
from hephaestus_jax.run_directory import Identity, RunDirectory
from hephaestus_jax.skipped_rows import SKIPPED_ROWS, Rollback, SkippedRows, read_skipped_rows
from hephaestus_jax.starting_point import open_starting_point
from hephaestus_jax.train_step import TrainState, init_state


def skipped_rows_of(run: RunDirectory, identity: Identity) -> SkippedRows:
    """The rows that this run left out so far; those of an earlier run here, of another identity, are forgotten."""
    record = run.record()
    if run.identity is None and (record is None or record["identity"] != identity):
        if is_main():
            (run.path / SKIPPED_ROWS).unlink(missing_ok=True)
        return SkippedRows((), run.path if is_main() else None)
    lines = on_first(lambda: read_skipped_rows(run.path))
    return SkippedRows(map(Rollback.from_json, lines), run.path if is_main() else None)


def first_state(
    config: TrainConfig,
    checkpoints: Checkpointer,
    abstract: TrainState,
    facts: Mapping[str, str | int],
    vocabulary: VocabularyIdentity,
    skipped: SkippedRows,
) -> tuple[TrainState, int]:
    """The state to go on from and its row cursor, by the first of these that applies.

    1. The newest whole checkpoint of this run.
    2. The parameters (and optimizer state, if asked) of another run's newest checkpoint or of an imported one, at
       step 0.
    3. The weights of a Hugging Face model, at step 0.
    4. Fresh parameters from the seed.
    """
    if (restored := checkpoints.restore(abstract, later=("guard/loss_mean",))) is not None:
        for name in ("model", "vocabulary", "seed"):
            if restored.facts[name] != facts[name]:
                raise UserError(
                    f"checkpoint {restored.step:,} in {checkpoints.directory} is another run's: its {name} differs;"
                    " put the run's own checkpoints back, or start from them with TrainConfig.init_from"
                )
        skipped.check(restored.facts.get("skipped_rows", ()))
        next_row = int(restored.facts["next_row"])
        say(f"resumed at step {restored.step:,}, row {next_row:,}, from {restored.source}")
        return restored.state, next_row
    if config.init_from:
        start = open_starting_point(config.init_from)
        _, frozen = trained_and_frozen(abstract.params, config.lora)
        wanted = {"params": frozen or abstract.params}
        if config.init_optimizer:
            wanted["opt_state"] = abstract.opt_state
        start.check_vocabulary(vocabulary)
        found = start.restore(wanted)
        if config.lora is not None and start.origin:
            _tell_of_new_tokens(start.origin)
        of = "the Hugging Face model" if start.kind == "huggingface" else f"step {found.step:,} of"
        adapters = "" if config.lora is None else f", and adapters from seed {config.seed}"
        say(f"started with {' and '.join(wanted)} of {of} {config.init_from}{adapters}")
        return init_state(config, abstract, found.state), 0
    say(f"started from scratch with seed {config.seed}")
    return init_state(config, abstract), 0


def _tell_of_new_tokens(origin: str) -> None:
    """Says that adapters do not train the rows of tokens that the model was given."""
    from hephaestus_jax.hf.vocabulary_growth import read_growths  # which only such a run needs

    if any(growth.get("tokens") for growth in read_growths(origin)):
        say(
            "note: the model was given new tokens, whose rows of the embedding are all alike; adapters leave them so,"
            " and the tokens stay the same to the model: train all weights first"
        )


def keep_origin_of(init_from: str, run: RunDirectory) -> None:
    """Keeps the files of the Hugging Face model that this line of runs began with, so that it can be exported.

    What an earlier start left, which saved nothing and may have begun elsewhere, goes.
    """
    origin = open_starting_point(init_from).origin if init_from else None
    if origin is not None:
        keep_origin(origin, run.huggingface)
    elif run.huggingface.exists():
        shutil.rmtree(run.huggingface)
