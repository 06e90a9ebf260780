"""The decoder once more, from the equations: float64 NumPy, one token and one head at a time.

Written independently of the package, for the tests to compare with; slow on purpose.
"""

from __future__ import annotations

import numpy as np

from hephaestus_jax.architecture import LinearRopeScaling, RopeScaling, YarnRopeScaling


def decode(params, config, tokens, segment_ids, positions):
    """Hidden states [B, L, D] after the final norm, as float64. `params` is the nested dictionary of arrays."""
    table = _wide(params["embedder"]["embedding"])
    hidden = np.stack([[table[token] for token in row] for row in tokens])
    if config.scaled_embedding:
        hidden = hidden * np.sqrt(config.embed_dim)

    def normed(layer, name, x):
        return _rms_norm(config, x, layer[name]["scale"]) if name in layer else x

    for number in range(config.num_layers):
        kind = config.layer_pattern[number % len(config.layer_pattern)]
        layer = _layer(params["layers"], number)
        x = normed(layer, "attention_norm", hidden)
        x = np.stack(
            [
                _attention(layer["attention"], config, kind, x[row], segment_ids[row], positions[row])
                for row in range(len(tokens))
            ]
        )
        hidden = hidden + normed(layer, "attention_post_norm", x)
        x = normed(layer, "mlp_norm", hidden)
        x = _experts(layer["experts"], config, x) if config.experts else _feed_forward(layer["mlp"], config, x)
        hidden = hidden + normed(layer, "mlp_post_norm", x)
    return _rms_norm(config, hidden, _wide(params["final_norm"]["scale"]))


def logits(params, config, tokens, segment_ids, positions):
    """[B, L, V]: inner products with the rows of the embedding if tied, else with the columns of the head."""
    hidden = decode(params, config, tokens, segment_ids, positions)
    if config.tied_embeddings:
        return _capped(np.einsum("bld,vd->blv", hidden, _wide(params["embedder"]["embedding"])), config.logit_softcap)
    return _capped(np.einsum("bld,dv->blv", hidden, _wide(params["head"]["kernel"])), config.logit_softcap)


def loss(params, config, tokens, segment_ids, positions, targets, weights):
    """Σ weight · (-log softmax(logits)[target]): one float64 number."""
    scores = logits(params, config, tokens, segment_ids, positions)
    total = 0.0
    for place in np.ndindex(*np.shape(tokens)):
        highest = scores[place].max()
        normaliser = highest + np.log(np.exp(scores[place] - highest).sum())
        total += weights[place] * (normaliser - scores[place][targets[place]])
    return total


def frequencies(config, kind="full"):
    """Radians per position of each pair, in layers of a kind."""
    half, scaling = config.head_dim // 2, config.rope_scaling
    if kind == "sliding" and config.sliding_rope_theta:
        return np.array([config.sliding_rope_theta ** (-pair / half) for pair in range(half)])
    plain = [config.rope_theta ** (-pair / half) for pair in range(half)]
    if isinstance(scaling, LinearRopeScaling):
        return np.array(plain) / scaling.factor
    if isinstance(scaling, YarnRopeScaling):
        return np.array([_yarn(config, scaling, pair, frequency) for pair, frequency in enumerate(plain)])
    if isinstance(scaling, RopeScaling):
        return np.array([_llama(scaling, frequency) for frequency in plain])
    return np.array(plain)


def _llama(scaling, frequency):
    """Llama 3's three cases of the wavelength."""
    wavelength = 2 * np.pi / frequency
    longest = scaling.original_max_positions / scaling.low_freq_factor
    shortest = scaling.original_max_positions / scaling.high_freq_factor
    if wavelength > longest:
        return frequency / scaling.factor
    if wavelength < shortest:
        return frequency
    smooth = (scaling.original_max_positions / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    return (1 - smooth) * frequency / scaling.factor + smooth * frequency


def _yarn(config, scaling, pair, frequency):
    """YaRN's ramp between the pairs that turn `beta_fast` and `beta_slow` times, both rounded outwards."""

    def solved(turns):
        """x of original · theta^(-2x / H) = 2π · turns."""
        return np.log(scaling.original_max_positions / (2 * np.pi * turns)) / np.log(
            config.rope_theta ** (2 / config.head_dim)
        )

    begin = max(np.floor(solved(scaling.beta_fast)), 0)
    end = min(np.ceil(solved(scaling.beta_slow)), config.head_dim - 1)
    if begin == end:
        end += 0.001
    slowed = min(max((pair - begin) / (end - begin), 0), 1)
    return slowed * frequency / scaling.factor + (1 - slowed) * frequency


def rotation_length(config, kind="full"):
    """What a rotated vector of length 1 has as length: YaRN's attention factor, 1 without it."""
    scaling = config.rope_scaling
    if not isinstance(scaling, YarnRopeScaling) or (kind == "sliding" and config.sliding_rope_theta):
        return 1.0
    if scaling.attention_factor:
        return scaling.attention_factor
    return 0.1 * np.log(scaling.factor) + 1 if scaling.factor > 1 else 1.0


def _wide(array):
    return np.asarray(array, dtype=np.float64)


def _layer(tree, number):
    if isinstance(tree, dict):
        return {name: _layer(part, number) for name, part in tree.items()}
    return _wide(tree)[number]


def _rms_norm(config, x, scale):
    """Over as many of the last axes as the scale has."""
    axes = tuple(range(-scale.ndim, 0))
    weight = 1 + scale if config.norm_plus_one else scale
    return x / np.sqrt(np.mean(x * x, axis=axes, keepdims=True) + config.norm_epsilon) * weight


def _capped(x, cap):
    return cap * np.tanh(x / cap) if cap else x


def _activated(config, x):
    if config.activation == "silu":
        return x / (1 + np.exp(-x))
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _feed_forward(mlp, config, x):
    return (_activated(config, x @ mlp["gate"]["kernel"]) * (x @ mlp["up"]["kernel"])) @ mlp["down"]["kernel"]


def _experts(weights, config, x):
    result = np.zeros_like(x)
    for place in np.ndindex(*x.shape[:-1]):
        scores = np.exp(x[place] @ weights["router"]["kernel"])
        scores /= scores.sum()
        chosen = np.argsort(-scores)[: config.experts.experts_per_token]
        whole = scores[chosen].sum() if config.experts.normalise else 1
        for expert in chosen:
            own = {name: {"kernel": weights[name]["kernel"][expert]} for name in ("gate", "up", "down")}
            result[place] += scores[expert] / whole * _feed_forward(own, config, x[place])
    return result


def _rotated(vector, angles):
    """Pair i and i + H/2 are the real and imaginary part of a number that is turned by its angle."""
    half = len(vector) // 2
    turned = (vector[:half] + 1j * vector[half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag])


def _heads(projection, x):
    """[L, heads, H]"""
    return np.einsum("ld,dnh->lnh", x, projection["kernel"]) + projection.get("bias", 0)


def _attention(weights, config, kind, x, segment_ids, positions):
    length, per_key = len(x), config.num_heads // config.num_kv_heads
    queries, keys, values = (_heads(weights[name], x) for name in ("query", "key", "value"))
    if config.query_key_norm != "none":
        queries = _rms_norm(config, queries, weights["query_norm"]["scale"])
        keys = _rms_norm(config, keys, weights["key_norm"]["scale"])
    angles = np.outer(positions, frequencies(config, kind))
    turned_length = rotation_length(config, kind)

    def turned(vector, i):
        return vector if kind == "unrotated" else turned_length * _rotated(vector, angles[i])

    window = config.sliding_window if kind == "sliding" else length
    result = np.zeros_like(x)
    for head in range(config.num_heads):
        shared = head // per_key
        for i in range(length):
            seen = [j for j in range(i + 1) if segment_ids[j] == segment_ids[i] and i - j < window]
            query = turned(queries[i, head], i)
            scores = np.array([query @ turned(keys[j, shared], j) for j in seen])
            scores = _capped(scores / np.sqrt(config.attention_scale_dim or config.head_dim), config.attention_softcap)
            shares = np.exp(scores - scores.max())
            mixed = (shares / shares.sum()) @ values[seen, shared]
            result[i] += mixed @ weights["out"]["kernel"][head]
    return result
