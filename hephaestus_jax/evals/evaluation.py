"""The final evaluation of models on one mixture and corpus: what evaluation.json holds.

What is asked of the models (rows, records, calls and their corruptions, prompts) is prepared once; models of one shape
share the compiled programs. One process; its devices are one mesh. An evaluation.json is written whole or not at all.

Imports of what reads and tokenises text stand inside functions: the rest also runs where training alone is installed.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from hephaestus_jax.checkpoints.reading import open_arrays
from hephaestus_jax.config import ComputeConfig, DType, MeshConfig, ModelConfig
from hephaestus_jax.data.mixture import open_mixture
from hephaestus_jax.data.mixture_spec import MixtureSpec
from hephaestus_jax.decode.programs import same_program
from hephaestus_jax.decode.sampling import generate
from hephaestus_jax.errors import UserError
from hephaestus_jax.evals.evaluation_files import FORMAT, versions
from hephaestus_jax.evals.record_losses import GROUPS, Groups, SliceRecords, record_losses
from hephaestus_jax.evals.scoring import TokenScorer
from hephaestus_jax.model.decoder import abstract_parameters, parameter_axes
from hephaestus_jax.progress import Progress
from hephaestus_jax.run_directory import digest_of
from hephaestus_jax.sharding import Partitioning, make_mesh
from hephaestus_jax.starting_point import StartingPoint

if TYPE_CHECKING:
    from hephaestus_jax.data.vocabularies import Vocabulary
    from hephaestus_jax.evals.ranking import RankingSet
    from hephaestus_jax.formats.rendering import RecordRenderer
    from hephaestus_jax.formats.store import Corpus

RULES = 1  # raised whenever the same model and inputs would give other figures
READ = (("agent_docs", "train"), ("agent_docs", "validation"), ("agent_trajectories", "validation"))
"""What the calls to rank are made of."""
SHORT_PROMPT = 192  # tokens
TEMPERATURE, TOP_P = 0.8, 0.95

Json = Any


@dataclass(frozen=True)
class EvaluationOptions:
    """What models are asked.

    Attributes:
        mixture: whose validation slices give the held-out losses.
        corpus: that the mixture was built from: it says which records belong together and has the calls to rank; "" for
            neither.
        vocabulary: of the mixture and the models.
        chat: the chat family that trajectories are rendered in.
        max_rows: of each slice, spread evenly over it; 0 for all.
        max_calls: right calls to rank, of as many APIs as possible; 0 for all, -1 for none.
        samples: prompts that texts are generated for, once greedily and once by sampling.
        sample_tokens: of each text, at most.
        seed: of corruptions, choices and sampling.
        batch_size: rows at a time; does not change the result but for rounding.
        dtype: of the computation; float32 on CPUs and bfloat16 elsewhere by default.
    """

    mixture: str
    vocabulary: str
    corpus: str = ""
    chat: str = "llama3"
    max_rows: int = 64
    max_calls: int = 100
    samples: int = 2
    sample_tokens: int = 48
    seed: int = 0
    batch_size: int = 8
    dtype: DType | None = None

    def __post_init__(self) -> None:
        least_of = {"max_rows": 0, "max_calls": -1, "samples": 0, "sample_tokens": 1, "batch_size": 1}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}; give {least} or more")

    @property
    def compute(self) -> ComputeConfig:
        """How models are computed."""
        dtype = self.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
        return ComputeConfig(dtype=dtype, attention="chunked")


class Evaluator:
    """Asks models. Preparing reads the corpus and tokenises the calls.

    Raises:
        UserError: mixture, corpus or vocabulary is missing or damaged, they do not belong together, or the mixture has
            no validation slice.
    """

    def __init__(self, options: EvaluationOptions) -> None:
        from hephaestus_jax.data.vocabularies import load_vocabulary
        from hephaestus_jax.formats.rendering import RecordRenderer

        self.options = options
        mixture = open_mixture(options.mixture)
        self.spec: MixtureSpec = mixture.spec
        self.vocabulary: Vocabulary = load_vocabulary(options.vocabulary)
        if self.vocabulary.digest != self.spec.vocabulary.digest:
            raise UserError(
                f"vocabulary {options.vocabulary} has digest {self.vocabulary.digest[:12]}, mixture {options.mixture}"
                f" was made with {self.spec.vocabulary.name} (digest {self.spec.vocabulary.digest[:12]}); give that one"
            )
        if not mixture.validation:
            raise UserError(
                f"mixture {options.mixture} has no validation slice; build it with --splits train,validation"
            )
        self._renderer: RecordRenderer = RecordRenderer(chat=options.chat)
        self._slices = {
            name: SliceRecords.of(cache, self.vocabulary.token_bytes, options.max_rows)
            for name, cache in mixture.validation.items()
        }
        self._scorers: dict[ModelConfig, TokenScorer] = {}
        self._read_corpus()

    def _read_corpus(self) -> None:
        """Groups, the calls to rank and the prompts."""
        self.ranking: RankingSet | None = None
        self._prompts: list[tuple[str, np.ndarray]] = []
        if not self.options.corpus:
            self._corpus_digest = ""
            self._groups = {name: {i: f"record:{i}" for i in part.ids} for name, part in self._slices.items()}
            return
        from hephaestus_jax.formats.store import Corpus

        corpus = Corpus(Path(self.options.corpus))
        groups = Groups(corpus)
        self._groups = {name: groups.of(part.cache.manifest.task, part.ids) for name, part in self._slices.items()}
        for name, found in self._groups.items():
            if found and all(group.startswith("record:") for group in found.values()):
                print(
                    f"slice {name}: its records are not in {self.options.corpus}; they are resampled one by one",
                    file=sys.stderr,
                )
        tasks = sorted({part.cache.manifest.task for part in self._slices.values()})
        digests = [corpus.digest(*read) for read in (*READ, *((task, "validation") for task in tasks))]
        self._corpus_digest = digest_of([digests, groups.family])
        if self.options.max_calls >= 0:
            self.ranking = self._build_ranking(corpus, groups)
        self._prompts = self._choose_prompts(corpus)

    def _build_ranking(self, corpus: Corpus, groups: Groups) -> RankingSet | None:
        from hephaestus_jax.evals.corruption import Corruptor
        from hephaestus_jax.evals.gold_calls import gold_calls, knowledge_of
        from hephaestus_jax.evals.ranking import build_ranking

        calls = gold_calls(corpus, groups.of_record, self.options.max_calls, self.options.seed)
        if not calls:
            return None
        knowledge = knowledge_of(corpus, groups.family, calls)
        corruptor = Corruptor(knowledge, [gold.call for gold in calls], self.options.seed)
        return build_ranking(calls, corruptor, self._renderer, self.vocabulary, self.spec.sequence_length)

    def _choose_prompts(self, corpus: Corpus) -> list[tuple[str, np.ndarray]]:
        """What users ask in the validation trajectories, up to the assistant's first word: text and tokens.

        Short ones go first; what leaves no room for an answer in a row is left out.
        """
        from hephaestus_jax.evals.conversations import prompt_of
        from hephaestus_jax.formats.records import Action, Trajectory, digest

        found = []
        for identifier, record in corpus.read("agent_trajectories", "validation"):
            if isinstance(record, Trajectory) and any(isinstance(step, Action) for step in record.steps):
                prompt_T = prompt_of(record, self._renderer, self.vocabulary)
                if len(prompt_T) + self.options.sample_tokens <= self.spec.sequence_length:
                    found.append((len(prompt_T) > SHORT_PROMPT, digest([self.options.seed, identifier]), prompt_T))
        if len(found) < self.options.samples:
            print(f"{len(found)} prompts for samples leave room for an answer in a row", file=sys.stderr)
        found.sort(key=lambda item: item[:2])
        return [(self.vocabulary.decode(prompt_T), prompt_T) for *_, prompt_T in found[: self.options.samples]]

    @cached_property
    def inputs(self) -> dict[str, Json]:
        """All that the figures of a model depend on besides its weights."""
        options = dataclasses.asdict(self.options)
        for name in ("mixture", "corpus", "vocabulary", "batch_size"):
            del options[name]
        options.update(dtype=self.options.compute.dtype, rules=RULES)
        caches = {name: part.digest for name, part in self.spec.validation.items()}
        return {
            "mixture": digest_of(caches),
            "corpus": self._corpus_digest,
            "vocabulary": self.spec.vocabulary.digest,
            "options": options,
        }

    def check(self, start: StartingPoint) -> None:
        """Passes if a model can be asked.

        Raises:
            UserError: it was made with another vocabulary, has fewer ids, or fewer positions than a row has tokens.
        """
        start.check_vocabulary(self.spec.vocabulary)
        if start.model.vocab_size < self.spec.vocabulary.size:
            raise UserError(
                f"the model in {start.path} has {start.model.vocab_size:,} ids, the mixture's vocabulary"
                f" {self.spec.vocabulary.size:,}; evaluate it on rows made with its own vocabulary"
            )
        if start.model.max_positions < self.spec.sequence_length:
            raise UserError(
                f"the model in {start.path} has {start.model.max_positions:,} positions, the mixture rows of"
                f" {self.spec.sequence_length:,} tokens; build rows of that length or less"
            )

    def evaluate(self, start: StartingPoint, facts: Mapping[str, Json], label: str) -> dict[str, Json]:
        """The content of a model's evaluation.json.

        Args:
            start: of which `check` passed.
            facts: `evaluation_files.model_facts` of it.
            label: what progress calls it.

        Raises:
            UserError: its weights cannot be restored, or give losses that are not finite.
        """
        began = time.monotonic()
        scorer = self._scorer(start.model)
        params = self._restore(start, facts["step"], scorer.partitioning)
        ranking_rows = len(self.ranking.packed.rows.tokens_NL) if self.ranking is not None else 0
        rows = sum(len(part.rows_N) for part in self._slices.values()) + ranking_rows
        with Progress(f"{label}: held-out rows and calls", "rows", rows) as progress:
            slices = self._losses(scorer, params, progress)
            ranking = self._rank(scorer, params, progress)
        return {
            "format": FORMAT,
            "model": facts,
            "inputs": self.inputs,
            "groups": GROUPS,
            "slices": slices,
            "ranking": ranking,
            "samples": self._sample(start.model, params, label),
            "seconds": round(time.monotonic() - began, 3),
            "versions": versions(),
        }

    def _scorer(self, model: ModelConfig) -> TokenScorer:
        """The compiled programs of a shape of model."""
        key = same_program(model)
        if key not in self._scorers:
            partitioning = Partitioning(make_mesh(MeshConfig()), model)
            self._scorers[key] = TokenScorer(model, self.options.compute, partitioning, self.options.batch_size)
        return self._scorers[key]

    def _restore(self, start: StartingPoint, step: int | None, partitioning: Partitioning) -> Any:
        abstract = abstract_parameters(start.model, self.options.compute.dtype)
        dtypes = {}
        if start.kind != "huggingface":  # a checkpoint is restored in the dtype that it was saved in
            reader = open_arrays(start.checkpoints, step)
            dtypes = {name: reader.dtype(name) for name in reader.names}

        def placed(path: Any, array: Any, sharding: Any) -> jax.ShapeDtypeStruct:
            name = "params/" + jax.tree_util.keystr(path, simple=True, separator="/")
            return jax.ShapeDtypeStruct(array.shape, dtypes.get(name, array.dtype), sharding=sharding)

        shardings = partitioning.tree(parameter_axes(start.model))
        wanted = jax.tree_util.tree_map_with_path(placed, abstract, shardings)
        return start.restore({"params": wanted}, step).state["params"]

    def _losses(self, scorer: TokenScorer, params: Any, progress: Progress) -> dict[str, Json]:
        slices = {}
        for name, part in self._slices.items():
            losses = record_losses(scorer, params, part, progress)
            if losses is None:
                print(f"slice {name} has no token under loss: skipped", file=sys.stderr)
            else:
                slices[name] = losses.to_json(self._groups[name])
        return slices

    def _rank(self, scorer: TokenScorer, params: Any, progress: Progress) -> Json:
        if self.ranking is None:
            return None
        from hephaestus_jax.evals.ranking import ranking_json, score_ranking

        return ranking_json(self.ranking, score_ranking(scorer, params, self.ranking, progress), self._log_share_V)

    @cached_property
    def _log_share_V(self) -> np.ndarray:
        """The logarithm of each token's share of the rows evaluated, one added to every count."""
        counts_V = np.ones(self.vocabulary.size)
        for part in self._slices.values():
            for _, rows in part.batches(self.options.batch_size):
                counts_V += np.bincount(rows.tokens_NL[rows.segment_ids_NL > 0], minlength=len(counts_V))
        return np.log(counts_V / counts_V.sum())

    def _sample(self, model: ModelConfig, params: Any, label: str) -> list[dict[str, Json]]:
        stops = sorted(set(self.vocabulary.control_ids.values()))
        settings = [(prompt, temperature) for prompt in self._prompts for temperature in (0.0, TEMPERATURE)]
        if not settings:
            return []
        texts = []
        with Progress(f"{label}: samples", "texts", len(settings)) as progress:
            for (prompt, prompt_T), temperature in progress.track(settings):
                ids = generate(
                    params, model, self.options.compute, prompt_T, self.options.sample_tokens, temperature, TOP_P,
                    self.options.seed, stops,
                )  # fmt: skip
                texts.append(
                    {
                        "prompt": prompt,
                        "completion": self._decoded(ids),
                        "tokens": len(ids),
                        "temperature": temperature,
                        "top_p": TOP_P if temperature else 1.0,
                        "seed": self.options.seed,
                    }
                )
        return texts

    def _decoded(self, ids: Sequence[int]) -> str:
        """The text of ids; those that the model has beyond the vocabulary spell nothing."""
        return self.vocabulary.decode([index for index in ids if index < self.vocabulary.size])
