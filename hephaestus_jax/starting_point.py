"""What a run begins from: another run's checkpoint, an imported one, or a Hugging Face model, told by what is there.

    RUN/run.json  RUN/checkpoints/            a training run; RUN/huggingface/ if its line began with such a model
    DIR/huggingface/  DIR/checkpoints/        what `python -m tools.convert_checkpoint import` makes
    DIR/config.json  DIR/*.safetensors        a Hugging Face model

The same places are what evaluation takes its models from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hephaestus_jax.architecture import LoraConfig, ModelConfig
from hephaestus_jax.data.identity import VocabularyIdentity
from hephaestus_jax.data.storage import MissingKeyError, Storage
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.config_files import read_config
from hephaestus_jax.hf.vocabulary_check import check_tokenizer_files
from hephaestus_jax.run_directory import CHECKPOINTS, HUGGINGFACE, RUN, RunDirectory

Kind = Literal["run", "imported", "huggingface"]


@dataclass(frozen=True)
class StartingPoint:
    """A place to begin from.

    Attributes:
        path: as it was given, made absolute.
        kind: see the module.
        model: the architecture of its weights.
        vocabulary: digest of the vocabulary that a run was trained with; None where tokenizer files tell.
        lora: adapters that a run trained beside its weights, which `restore` adds to them.
    """

    path: str
    kind: Kind
    model: ModelConfig
    vocabulary: str | None = None
    lora: LoraConfig | None = None

    @property
    def checkpoints(self) -> str:
        """Where its checkpoints lie; a Hugging Face model has none."""
        return Storage(self.path).join(CHECKPOINTS).url

    @property
    def origin(self) -> str | None:
        """The folder with the Hugging Face files that an export gives back; None for a line begun from scratch."""
        if self.kind == "huggingface":
            return self.path
        folder = Storage(self.path).join(HUGGINGFACE).url
        return folder if os.path.isfile(os.path.join(folder, "config.json")) else None

    def restore(self, abstract: Mapping[str, Any], step: int | None = None) -> Any:
        """Parts of its newest checkpoint, as `checkpoints.Restored`.

        Args:
            abstract: for each part ("params", "opt_state") the tree of `jax.ShapeDtypeStruct`, with shardings or not.
            step: another checkpoint than the newest; of a training run.

        Raises:
            UserError: there is nothing to restore, it is damaged, or has other arrays than those asked for.
        """
        from hephaestus_jax.checkpoints import Restored, restore_parts
        from hephaestus_jax.distributed import is_main
        from hephaestus_jax.hf.checkpoint import open_checkpoint
        from hephaestus_jax.hf.importing import import_parameters, narrowed

        if self.lora is not None and "params" in abstract:
            return self._restore_merged(self.lora, abstract, step)
        if self.kind != "huggingface":
            return restore_parts(self.checkpoints, abstract, step)
        if "opt_state" in abstract:
            raise UserError(
                f"{self.path} is a Hugging Face model, which has no optimizer state; leave out"
                " TrainConfig.init_optimizer"
            )
        if (rounded := narrowed(open_checkpoint(self.path), abstract["params"])) and is_main():
            print(f"{len(rounded):,} tensors are rounded to the dtype asked for, the first {rounded[0]}", flush=True)
        return Restored(0, {"params": import_parameters(self.path, abstract["params"])}, {})

    def _restore_merged(self, lora: LoraConfig, abstract: Mapping[str, Any], step: int | None) -> Any:
        """The same of a run that trained adapters, with these added to the weights that they stand beside."""
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        from hephaestus_jax.checkpoints import restore_parts
        from hephaestus_jax.model.decoder import abstract_parameters
        from hephaestus_jax.model.lora import joined, merged_parameters, trained_and_frozen

        params = abstract["params"]
        whole = jax.tree.leaves(params)[0].sharding
        if isinstance(whole, NamedSharding):
            whole = NamedSharding(whole.mesh, PartitionSpec())
        adapters, _ = trained_and_frozen(abstract_parameters(self.model, lora=lora), lora)
        adapters = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), adapters)
        found = restore_parts(self.checkpoints, {**abstract, "params": joined(params, adapters)}, step)
        return replace(found, state={**found.state, "params": merged_parameters(found.state["params"], lora)})

    def check_vocabulary(self, vocabulary: VocabularyIdentity) -> None:
        """Passes if token ids mean here what they mean in `vocabulary`, that of a mixture.

        Raises:
            UserError: they do not.
        """
        if self.vocabulary is None:
            check_tokenizer_files(Path(self.origin or self.path), vocabulary)
        elif self.vocabulary != vocabulary.digest:
            raise UserError(
                f"the run in {self.path} has a vocabulary of digest {self.vocabulary[:12]}, this mixture one of"
                f" {vocabulary.digest[:12]}: its token ids mean something else; build the mixture with that run's"
                " vocabulary"
            )


def open_starting_point(path: str | os.PathLike[str]) -> StartingPoint:
    """What lies at `path`; its configuration is read, its weights are not.

    Raises:
        UserError: nothing to begin from is there, or it is of a kind that cannot be used.
    """
    storage = Storage(os.fspath(path))
    try:
        record = storage.read_json(RUN)
    except MissingKeyError:
        record = None
    if record is not None:
        return StartingPoint(storage.url, "run", *_model_of_run(storage, record))
    local = Path(storage.url)
    if (local / HUGGINGFACE / "config.json").is_file() and (local / CHECKPOINTS).is_dir():
        return StartingPoint(storage.url, "imported", read_config(local / HUGGINGFACE).model)
    if (local / "config.json").is_file():
        return StartingPoint(storage.url, "huggingface", read_config(local).model)
    raise UserError(
        f"{path} is nothing to begin from: it has neither {RUN} (a run) nor config.json (a Hugging Face model); give"
        " the folder of one"
    )


def _model_of_run(storage: Storage, record: Any) -> tuple[ModelConfig, str, LoraConfig | None]:
    """The model of a run, the digest of its vocabulary, and its adapters."""
    try:
        identity = record["identity"]
        lora = LoraConfig.from_json(fields) if (fields := part_of(identity, "lora")) else None
        return ModelConfig.from_json(part_of(identity, "model")), identity["vocabulary"], lora
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{storage.join(RUN)} does not say what model it is of ({error}); put it back as it was"
        ) from error


def part_of(identity: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The fields of a part of a run's configuration, of its identity."""
    return {name[len(part) + 1 :]: value for name, value in identity.items() if name.startswith(f"{part}.")}


def starting_model(path: str, run_dir: str) -> ModelConfig:
    """The model of a run that begins at `path`, for gin files: `TrainConfig.model = @starting_model()`.

    A run that has begun knows its model itself, so that it resumes where `path` is gone.
    """
    begun = RunDirectory(run_dir, writes=False).identity is not None
    return open_starting_point(run_dir if begun else path).model
