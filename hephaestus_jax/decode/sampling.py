"""Sampling from a model, one token after the other.

There is no key-value cache: every token is computed with a whole forward pass over a buffer of fixed length, which is
slow for long texts and simple for the few that an evaluation shows. One program serves all prompts that need a buffer
of the same length.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hephaestus_jax.config import ComputeConfig, ModelConfig
from hephaestus_jax.decode.programs import same_program
from hephaestus_jax.errors import UserError
from hephaestus_jax.model.decoder import decode, output_logits

LENGTH_STEP = 64  # buffers are multiples of it, so that few programs are compiled


def generate(
    params: Any,
    model: ModelConfig,
    compute: ComputeConfig,
    prompt_ids: Sequence[int] | np.ndarray,
    max_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    stop_ids: Sequence[int] = (),
) -> list[int]:
    """The ids that the model writes after a prompt, without the stop id that ended them.

    Args:
        params: of the model, on any devices.
        model: the architecture.
        compute: how it is computed.
        prompt_ids: one id or more.
        max_tokens: ids at most.
        temperature: 0 takes the most likely id each time (of equal ones the first); 1 samples from the model.
        top_p: samples from the fewest ids whose probabilities sum to it or more (nucleus sampling, Holtzman et al.
            2019, arXiv 1904.09751); above 0.
        seed: of the sampling.
        stop_ids: end the text.

    Raises:
        UserError: the prompt is empty or has ids that the model lacks, a setting is out of range, or the text would be
            longer than the model's positions.
    """
    prompt = np.asarray(prompt_ids, np.int32)
    total = len(prompt) + max_tokens
    if not len(prompt) or prompt.min() < 0 or prompt.max() >= model.vocab_size:
        raise UserError(f"a prompt needs one id or more, each from 0 to {model.vocab_size - 1}")
    if max_tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
        raise UserError(
            f"max_tokens {max_tokens} must be 1 or more, temperature {temperature} 0 or more, top_p {top_p} above 0 and"
            " at most 1"
        )
    if total > model.max_positions:
        raise UserError(
            f"a prompt of {len(prompt):,} tokens and {max_tokens:,} more exceed the model's {model.max_positions:,}"
            " positions; shorten either"
        )
    buffer = np.zeros(-(-total // LENGTH_STEP) * LENGTH_STEP, np.int32)
    buffer[: len(prompt)] = prompt
    stops = np.zeros(model.vocab_size, bool)
    stops[[index for index in stop_ids if 0 <= index < model.vocab_size]] = True
    key = jax.random.key(seed)
    shape = same_program(model)
    tokens, end = _write(params, buffer, len(prompt), total, temperature, top_p, key, stops, shape, compute)
    return np.asarray(tokens)[len(prompt) : int(end)].tolist()


@functools.partial(jax.jit, static_argnames=("model", "compute"))
def _write(
    params: Any,
    tokens_L: jax.Array,
    start: jax.Array,
    limit: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
    key: jax.Array,
    stops_V: jax.Array,
    model: ModelConfig,
    compute: ComputeConfig,
) -> tuple[jax.Array, jax.Array]:
    """The buffer written from `start` on, and where the text ends."""
    places_1L = jnp.arange(len(tokens_L))[None]

    def going_on(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        _, place, stopped = state
        return ~stopped & (place < limit)

    def write_one(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        tokens_L, place, _ = state
        # what stands behind `place` has no influence: attention is causal
        hidden_1LD = decode(params, model, compute, tokens_L[None], jnp.ones_like(places_1L), places_1L)
        logits_V = output_logits(params, model, jax.lax.dynamic_slice_in_dim(hidden_1LD, place - 1, 1, axis=1))[0, 0]
        chosen = _choose(logits_V, temperature, top_p, jax.random.fold_in(key, place))
        stopped = stops_V[chosen]
        tokens_L = tokens_L.at[place].set(jnp.where(stopped, tokens_L[place], chosen))
        return tokens_L, place + jnp.where(stopped, 0, 1), stopped

    tokens_L, end, _ = jax.lax.while_loop(going_on, write_one, (tokens_L, start, jnp.asarray(False)))
    return tokens_L, end


def _choose(logits_V: jax.Array, temperature: jax.Array, top_p: jax.Array, key: jax.Array) -> jax.Array:
    """One id, int32."""
    log_p_V = jax.nn.log_softmax(logits_V / jnp.where(temperature > 0, temperature, 1.0))
    order_V = jnp.argsort(-log_p_V)
    p_V = jnp.exp(log_p_V[order_V])
    # the ids before which less than top_p was reached: the first one always
    in_nucleus_V = jnp.cumsum(p_V) - p_V < top_p
    drawn = order_V[jax.random.categorical(key, jnp.where(in_nucleus_V, jnp.log(p_V), -jnp.inf))]
    return jnp.where(temperature > 0, drawn, jnp.argmax(logits_V)).astype(jnp.int32)
