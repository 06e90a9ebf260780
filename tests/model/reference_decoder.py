"""The decoder once more, from the equations: float64 NumPy, one token and one head at a time.

Written independently of the package, for the tests to compare with; slow on purpose.
"""

from __future__ import annotations

import numpy as np


def decode(params, config, tokens, segment_ids, positions):
    """Hidden states [B, L, D] after the final norm, as float64. `params` is the nested dictionary of arrays."""
    table = _wide(params["embedder"]["embedding"])
    hidden = np.stack([[table[token] for token in row] for row in tokens])
    for number in range(config.num_layers):
        layer = _layer(params["layers"], number)
        normed = _rms_norm(hidden, layer["attention_norm"]["scale"], config.norm_epsilon)
        hidden = hidden + np.stack(
            [
                _attention(layer["attention"], config, normed[row], segment_ids[row], positions[row])
                for row in range(len(tokens))
            ]
        )
        normed = _rms_norm(hidden, layer["mlp_norm"]["scale"], config.norm_epsilon)
        hidden = hidden + _feed_forward(layer["mlp"], normed)
    return _rms_norm(hidden, _wide(params["final_norm"]["scale"]), config.norm_epsilon)


def logits(params, config, tokens, segment_ids, positions):
    """[B, L, V]: inner products with the rows of the embedding if tied, else with the columns of the head."""
    hidden = decode(params, config, tokens, segment_ids, positions)
    if config.tied_embeddings:
        return np.einsum("bld,vd->blv", hidden, _wide(params["embedder"]["embedding"]))
    return np.einsum("bld,dv->blv", hidden, _wide(params["head"]["kernel"]))


def loss(params, config, tokens, segment_ids, positions, targets, weights):
    """Σ weight · (-log softmax(logits)[target]): one float64 number."""
    scores = logits(params, config, tokens, segment_ids, positions)
    total = 0.0
    for place in np.ndindex(*np.shape(tokens)):
        highest = scores[place].max()
        normaliser = highest + np.log(np.exp(scores[place] - highest).sum())
        total += weights[place] * (normaliser - scores[place][targets[place]])
    return total


def frequencies(config):
    """Radians per position of each pair, by Llama 3's three cases of the wavelength."""
    result = []
    for pair in range(config.head_dim // 2):
        frequency = 1.0 / config.rope_theta ** (2 * pair / config.head_dim)
        scaling = config.rope_scaling
        if scaling is not None:
            wavelength = 2 * np.pi / frequency
            longest = scaling.original_max_positions / scaling.low_freq_factor
            shortest = scaling.original_max_positions / scaling.high_freq_factor
            if wavelength > longest:
                frequency = frequency / scaling.factor
            elif wavelength >= shortest:
                smooth = (scaling.original_max_positions / wavelength - scaling.low_freq_factor) / (
                    scaling.high_freq_factor - scaling.low_freq_factor
                )
                frequency = (1 - smooth) * frequency / scaling.factor + smooth * frequency
        result.append(frequency)
    return np.array(result)


def _wide(array):
    return np.asarray(array, dtype=np.float64)


def _layer(tree, number):
    if isinstance(tree, dict):
        return {name: _layer(part, number) for name, part in tree.items()}
    return _wide(tree)[number]


def _rms_norm(x, scale, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * scale


def _feed_forward(mlp, x):
    gate = x @ mlp["gate"]["kernel"]
    return (gate / (1 + np.exp(-gate)) * (x @ mlp["up"]["kernel"])) @ mlp["down"]["kernel"]


def _rotated(vector, angles):
    """Pair i and i + H/2 are the real and imaginary part of a number that is turned by its angle."""
    half = len(vector) // 2
    turned = (vector[:half] + 1j * vector[half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag])


def _attention(weights, config, x, segment_ids, positions):
    length, per_key = len(x), config.num_heads // config.num_kv_heads
    angles = np.outer(positions, frequencies(config))
    result = np.zeros_like(x)
    for head in range(config.num_heads):
        shared = head // per_key
        queries = [_rotated(x[i] @ weights["query"]["kernel"][:, head], angles[i]) for i in range(length)]
        keys = [_rotated(x[i] @ weights["key"]["kernel"][:, shared], angles[i]) for i in range(length)]
        values = x @ weights["value"]["kernel"][:, shared]
        for i in range(length):
            seen = [j for j in range(i + 1) if segment_ids[j] == segment_ids[i]]
            scores = np.array([queries[i] @ keys[j] for j in seen]) / np.sqrt(config.head_dim)
            shares = np.exp(scores - scores.max())
            mixed = (shares / shares.sum()) @ values[seen]
            result[i] += mixed @ weights["out"]["kernel"][head]
    return result
