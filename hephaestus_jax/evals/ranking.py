"""Whether a model prefers the right call of an API that it never saw to the same call with one thing wrong.

Scored is what the assistant writes in its last turn: the call, its markup and the end of the turn, given the tools, the
request and all steps before. Only that turn differs between the two. A conversation longer than a row keeps its first
tokens (the tools; at most a quarter of the row, as where a record continues in another row) and as many of the last as
fit, the same for all versions of a call.

Three ways to compare log-likelihoods are reported. The first one counts (`HEADLINE`); it was chosen by what one gets
that knows nothing:

    in_context   how much the context raises the log-likelihood of the call: log p(call | context) - log p(call | an
                 empty request), the pointwise mutual information of Holtzman et al. (2021, arXiv 2104.08315)
    total        log p(call | context)
    per_byte     log p(call | context) over the UTF-8 bytes of the call

Wrong functions and wrong arguments are as long as what they replace, and a guess gets about ½ in every way. A missing
argument makes the call shorter: a guess gets 0 by `total`, and nearly 0 `per_byte` too, because arguments, names and
numbers, cost more bits per byte than the markup around them. By `in_context`, whatever does not look at the context
ties: ½ for all three. What it leaves out is what a model knows of calls in general; `total` has that, for wrong
functions and arguments. Also, whatever makes a model repeat words of the context favours the longer call. On 220 pairs
from the whole installation, sixteen untrained models got, on average (lowest and highest of the sixteen):

                        in_context             total                  per_byte
    wrong_function      0.50 (0.39 to 0.70)    0.42 (0.35 to 0.52)    0.45 (0.39 to 0.54)
    wrong_argument      0.51 (0.42 to 0.62)    0.45 (0.38 to 0.55)    0.42 (0.35 to 0.49)
    missing_argument    0.60 (0.41 to 0.78)    0 (0 to 0)             0.16 (0.15 to 0.17)

Their embeddings were tied, so that they repeat words. So compare models with each other, and with what an untrained one
gets; what token frequencies alone and the shorter call get is reported as `baselines`.

Shape letters: S conversations, P pairs, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hephaestus_jax.data.packing import Rows
from hephaestus_jax.data.vocabularies import Vocabulary
from hephaestus_jax.evals.call_forms import text_of
from hephaestus_jax.evals.conversations import PackedConversations, Scored, alone, scored_conversations, until
from hephaestus_jax.evals.corruption import KINDS, Corruption, Corruptor
from hephaestus_jax.evals.gold_calls import GoldCall
from hephaestus_jax.evals.scoring import TokenScorer, segment_sums
from hephaestus_jax.formats.rendering import RecordRenderer
from hephaestus_jax.progress import Progress

WAYS = ("in_context", "total", "per_byte")
HEADLINE = WAYS[0]
NORMALISATION = (
    "in_context: log-likelihood of the call given the conversation, less that given an empty request; ties count half"
)
TIE = 1e-6  # nats, or nats per byte: what rounding does
EXAMPLES = 6
TAIL = 400  # characters of an example's conversation


@dataclass(frozen=True)
class Pair:
    """A right call and a wrong one, by the numbers of their conversations."""

    gold: GoldCall
    corruption: Corruption
    right: int
    wrong: int
    right_alone: int
    wrong_alone: int

    @property
    def id(self) -> str:
        """Tells it from all other pairs."""
        return f"{self.gold.key}/{self.corruption.kind}"


@dataclass(frozen=True)
class RankingSet:
    """Pairs and their conversations, ready to be scored.

    Attributes:
        pairs: P of them.
        conversations: S of them, shortened to rows.
        packed: the same in rows.
        bytes_S: UTF-8 bytes of what is scored.
        examples: a few pairs as JSON, for people to read.
        too_long: calls left out because they fill more than half a row.
    """

    pairs: tuple[Pair, ...]
    conversations: tuple[Scored, ...]
    packed: PackedConversations
    bytes_S: np.ndarray
    examples: tuple[dict[str, str], ...]
    too_long: int

    @property
    def num_calls(self) -> int:
        """Right calls."""
        return len({pair.right for pair in self.pairs})

    def frequency_scores(self, log_share_V: np.ndarray) -> np.ndarray:
        """The log-likelihood of each conversation's call by token frequencies alone: float64 [S]."""
        return np.array([log_share_V[c.tokens_T[c.scored_T]].sum() for c in self.conversations])


def build_ranking(
    calls: Sequence[GoldCall], corruptor: Corruptor, renderer: RecordRenderer, vocabulary: Vocabulary, length: int
) -> RankingSet | None:
    """Corrupts calls and renders them; None if not one can be corrupted.

    Args:
        calls: the right ones.
        corruptor: what goes wrong.
        renderer: the chat format of the runs.
        vocabulary: of the models.
        length: tokens of a row.

    Raises:
        UserError: the renderer has no form for a trajectory, or the vocabulary lacks its control tokens.
    """
    pairs: list[Pair] = []
    kept: list[Scored] = []
    too_long = 0
    for gold in calls:
        corruptions = corruptor.corrupt(gold.call, gold.api, gold.key, gold.trajectory, gold.before)
        steps = [gold.call.step, *(corruption.step for corruption in corruptions)]
        whole = [until(gold.trajectory, gold.before, step) for step in steps]
        bare = [alone(gold.trajectory, step) for step in steps]
        conversations = scored_conversations([*whole, *bare], renderer, vocabulary)
        longest = max(len(conversation.tokens_T) - conversation.context for conversation in conversations)
        if longest > length // 2:
            too_long += 1
            continue
        first, count = len(kept), len(steps)
        kept += [conversation.shortened(length - longest, length) for conversation in conversations]
        for number, corruption in enumerate(corruptions, first + 1):
            pairs.append(Pair(gold, corruption, first, number, first + count, number + count))
    if not pairs:
        return None
    return RankingSet(
        pairs=tuple(pairs),
        conversations=tuple(kept),
        packed=PackedConversations.of(kept, length),
        bytes_S=np.array([vocabulary.token_bytes[c.tokens_T[c.scored_T]].sum(dtype=np.int64) for c in kept]),
        examples=tuple(_example(pair, kept[pair.right], vocabulary) for pair in _some(pairs)),
        too_long=too_long,
    )


def score_ranking(scorer: TokenScorer, params: Any, ranking: RankingSet, progress: Progress) -> np.ndarray:
    """The log-likelihood of each conversation's call: float64 [S]."""
    rows, packed, size = ranking.packed.rows, ranking.packed, scorer.batch_size
    arrays = [getattr(rows, field.name) for field in dataclasses.fields(Rows)]

    def batches() -> Iterator[tuple[Rows, np.ndarray]]:
        for start in range(0, len(rows.tokens_NL), size):
            part = Rows(*(array[start : start + size] for array in arrays))
            yield part, part.loss_weights_NL > 0

    num_segments = int(packed.segment_S.max())
    parts = []
    for start, nats_NL in enumerate(scorer(params, batches(), packed.width)):
        segment_ids_NL = rows.segment_ids_NL[start * size : start * size + len(nats_NL)]
        parts.append(segment_sums(nats_NL, segment_ids_NL, num_segments))
        progress.add(len(nats_NL))
    return -np.concatenate(parts)[packed.row_S, packed.segment_S]


def margins(ranking: RankingSet, scores_S: np.ndarray) -> dict[str, np.ndarray]:
    """By how much the right call of each pair is preferred, in each of `WAYS`: float64 [P]; 0 where the two tie."""
    right, wrong = (np.array([getattr(pair, name) for pair in ranking.pairs]) for name in ("right", "wrong"))
    alone_right, alone_wrong = (
        np.array([getattr(pair, name) for pair in ranking.pairs]) for name in ("right_alone", "wrong_alone")
    )
    by_byte_S = scores_S / np.maximum(ranking.bytes_S, 1)
    found = {
        "in_context": (scores_S[right] - scores_S[alone_right]) - (scores_S[wrong] - scores_S[alone_wrong]),
        "total": scores_S[right] - scores_S[wrong],
        "per_byte": by_byte_S[right] - by_byte_S[wrong],
    }
    return {way: np.where(np.abs(values_P) < TIE, 0.0, values_P) for way, values_P in found.items()}


def correct(margins_P: np.ndarray) -> np.ndarray:
    """1 where the right call is preferred, ½ where the two tie, else 0: float64 [P]."""
    return np.where(margins_P == 0, 0.5, margins_P > 0)


def ranking_json(ranking: RankingSet, scores_S: np.ndarray, log_share_V: np.ndarray) -> dict[str, Any]:
    """As in evaluation.json; `log_share_V` are the logarithms of the tokens' shares of a text, for the baselines."""
    found = margins(ranking, scores_S)
    of_frequencies = margins(ranking, ranking.frequency_scores(log_share_V))
    baselines = {f"token_frequencies_{way}": of_frequencies[way] for way in WAYS}
    baselines["shorter_call"] = margins(ranking, -ranking.bytes_S.astype(np.float64))["total"]
    kinds_P = np.array([pair.corruption.kind for pair in ranking.pairs])
    corruptions = {}
    for kind in KINDS:
        if chosen := np.flatnonzero(kinds_P == kind).tolist():
            corruptions[kind] = {
                "pairs": len(chosen),
                "accuracy": _mean(found[HEADLINE], chosen),
                **{f"accuracy_{way}": _mean(found[way], chosen) for way in WAYS},
                "trivial": _mean(baselines["shorter_call"], chosen),
                "baselines": {name: _mean(values, chosen) for name, values in baselines.items()},
            }
    return {
        "calls": ranking.num_calls,
        "calls_too_long": ranking.too_long,
        "apis": len({pair.gold.api for pair in ranking.pairs}),
        "pairs": len(ranking.pairs),
        "accuracy": float(correct(found[HEADLINE]).mean()),
        "chance": 0.5,
        "normalisation": NORMALISATION,
        "trivial_rule": "the shorter call wins",
        "corruptions": corruptions,
        "per_pair": {
            "id": [pair.id for pair in ranking.pairs],
            "api": [pair.gold.api for pair in ranking.pairs],
            "group": [pair.gold.group for pair in ranking.pairs],
            "source": [pair.gold.source for pair in ranking.pairs],
            "corruption": kinds_P.tolist(),
            "rule": [pair.corruption.how for pair in ranking.pairs],
            "correct": correct(found[HEADLINE]).tolist(),
            "margin": found[HEADLINE].tolist(),
            **{f"margin_{way}": found[way].tolist() for way in WAYS},
        },
        "examples": list(ranking.examples),
    }


def _mean(margins_P: np.ndarray, chosen: Sequence[int]) -> float:
    return float(correct(margins_P[chosen]).mean())


def _some(pairs: Sequence[Pair]) -> list[Pair]:
    """A few pairs of every kind, each of another call where possible."""
    chosen: dict[str, Pair] = {}
    for number in range(EXAMPLES // len(KINDS)):
        for kind in KINDS:
            used = {pair.right for pair in chosen.values()}
            fresh = [pair for pair in pairs if pair.corruption.kind == kind and pair.right not in used]
            chosen.update({f"{kind}/{number}": pair for pair in fresh[:1]})
    return list(chosen.values())


def _example(pair: Pair, right: Scored, vocabulary: Vocabulary) -> dict[str, str]:
    prompt = vocabulary.decode(right.tokens_T[: right.context])
    return {
        "api": pair.gold.api,
        "source": pair.gold.source,
        "prompt": prompt if len(prompt) <= TAIL else "… " + prompt[-TAIL:],
        "gold": text_of(pair.gold.call.step),
        "corrupted": text_of(pair.corruption.step),
        "corruption": pair.corruption.kind,
        "rule": pair.corruption.how,
    }
