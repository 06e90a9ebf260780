"""Conversations as tokens of which the assistant's last turn is scored, in the chat format of the run.

Shape letters: T tokens of a conversation, S conversations, N rows, L tokens of a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hephaestus_jax.data.packing import CARRY_SHARE, Rows, best_fit, lay_out
from hephaestus_jax.data.tokenization import tokenize
from hephaestus_jax.data.vocabularies import Vocabulary
from hephaestus_jax.formats.records import Action, MessageAction, TextObservation, Trajectory
from hephaestus_jax.formats.rendering import RecordRenderer


@dataclass(frozen=True)
class Scored:
    """A conversation: tokens int32 [T], and bool [T] which of them are scored, one or more, never the first.

    The first `carry` tokens are the beginning and the tools on offer.
    """

    tokens_T: np.ndarray
    scored_T: np.ndarray
    carry: int

    @property
    def context(self) -> int:
        """Number of tokens before the first that is scored."""
        return int(np.argmax(self.scored_T))

    def shortened(self, context: int, length: int) -> Scored:
        """With `context` tokens of context: the carry, at most a quarter of a row of `length`, and the last ones."""
        if context >= self.context:
            return self
        carry = min(self.carry, length // CARRY_SHARE, context)
        dropped = np.arange(carry, carry + self.context - context)
        return Scored(np.delete(self.tokens_T, dropped), np.delete(self.scored_T, dropped), carry)


def until(trajectory: Trajectory, before: int, step: Action) -> Trajectory:
    """The first `before` steps of a trajectory and then `step`, the only one under loss."""
    done = [
        dataclasses.replace(earlier, outcome="error") if isinstance(earlier, Action) else earlier
        for earlier in trajectory.steps[:before]
    ]
    return dataclasses.replace(trajectory, steps=(*done, dataclasses.replace(step, outcome="ok")))


def alone(trajectory: Trajectory, step: Action) -> Trajectory:
    """`step` after an empty request, without tools."""
    return Trajectory((TextObservation("", "user"), step), trajectory.provenance)


def scored_conversations(
    trajectories: Sequence[Trajectory], renderer: RecordRenderer, vocabulary: Vocabulary
) -> list[Scored]:
    """Each trajectory with what the assistant writes in its steps under loss, end of the turn included.

    Raises:
        UserError: the renderer has no form for one, or the vocabulary lacks a control token of its.
    """
    assistant = dataclasses.replace(renderer, train_on="assistant")
    renderings = [assistant.render(trajectory) for trajectory in trajectories]
    found = tokenize(renderings, vocabulary, assistant.controls)
    return [Scored(tokens.tokens_T, tokens.weights_T > 0, tokens.carry) for tokens in found]


def prompt_of(trajectory: Trajectory, renderer: RecordRenderer, vocabulary: Vocabulary) -> np.ndarray:
    """The tokens of a trajectory up to the assistant's first word, int32 [T]."""
    first = next(n for n, step in enumerate(trajectory.steps) if isinstance(step, Action))
    (conversation,) = scored_conversations(
        [until(trajectory, first, MessageAction("An answer."))], renderer, vocabulary
    )
    return conversation.tokens_T[: conversation.context]


@dataclass(frozen=True)
class PackedConversations:
    """Conversations in rows, `loss_weights` 1 at what is scored: conversation s is a segment of row `row_S[s]`.

    `width` is the largest number of scored tokens of a row.
    """

    rows: Rows
    row_S: np.ndarray
    segment_S: np.ndarray
    width: int

    @classmethod
    def of(cls, conversations: Sequence[Scored], length: int) -> PackedConversations:
        """As few rows of `length` tokens as best-fit-decreasing finds; none is longer than that."""
        lengths_S = np.array([len(conversation.tokens_T) for conversation in conversations])
        row_S = best_fit(lengths_S, length)
        order = np.argsort(row_S, kind="stable")
        counts_N = np.bincount(row_S)
        tokens = np.concatenate([conversations[s].tokens_T for s in order])
        scored = np.concatenate([conversations[s].scored_T for s in order]).astype(np.float32)
        rows = lay_out(tokens, scored, lengths_S[order], counts_N, length)
        segment_S = np.empty_like(row_S)
        segment_S[order] = 1 + np.arange(len(order)) - np.repeat(np.cumsum(counts_N) - counts_N, counts_N)
        return cls(rows, row_S, segment_S, int(rows.loss_weights_NL.sum(axis=1).max()))
