"""What a model is: its weights' shapes and the function that they stand for; `config` says how it is computed.

Sizes are named by one letter throughout the package: V vocabulary, D embedding, F feed-forward, N query heads,
K key/value heads, H head dimension, B rows of the global batch, L tokens of a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hephaestus_jax.errors import UserError


def require(condition: bool, message: str) -> None:
    """Raises a `UserError` with that message unless the condition holds."""
    if not condition:
        raise UserError(message)


def finite(value: float) -> bool:
    """Whether a number is one."""
    return isinstance(value, int) or math.isfinite(value)  # an int may be too large to be asked


def positive(config: object, *names: str) -> None:
    """Raises unless these fields of a dataclass are above 0."""
    for name in names:
        value = getattr(config, name)
        require(finite(value) and value > 0, f"{type(config).__name__}.{name} is {value}; it must be above 0")


def at_least_zero(config: object, *names: str) -> None:
    """Raises unless these fields of a dataclass are 0 or more."""
    for name in names:
        value = getattr(config, name)
        require(math.isfinite(value) and value >= 0, f"{type(config).__name__}.{name} is {value}; it must be 0 or more")


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's change of rotary frequencies for longer contexts (Llama 3.1, `rope_type: llama3`).

    Wavelengths longer than `original_max_positions / low_freq_factor` are stretched by `factor`, those shorter than
    `original_max_positions / high_freq_factor` are kept, and those between are interpolated.
    """

    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192

    def __post_init__(self) -> None:
        positive(self, "factor", "low_freq_factor", "high_freq_factor", "original_max_positions")
        require(
            self.low_freq_factor < self.high_freq_factor,
            f"RopeScaling.low_freq_factor {self.low_freq_factor} must be below high_freq_factor"
            f" {self.high_freq_factor}",
        )


@dataclass(frozen=True)
class ExpertsConfig:
    """A mixture of experts in place of the feed-forward (Mixtral, arXiv 2401.04088; Qwen3-MoE, arXiv 2505.09388).

    A router gives every token a softmax over all experts, in float32; the token's feed-forward is the sum of its
    `experts_per_token` likeliest experts, by these probabilities. No token is dropped, whatever the load.

    Attributes:
        num_experts: E.
        experts_per_token: likeliest experts that a token is computed by.
        mlp_dim: width of one expert's SwiGLU feed-forward.
        normalise: whether the probabilities of a token's experts are scaled to add up to 1 (Mixtral; Qwen3-MoE's
            `norm_topk_prob`).
    """

    num_experts: int
    experts_per_token: int
    mlp_dim: int
    normalise: bool = True

    def __post_init__(self) -> None:
        positive(self, "num_experts", "experts_per_token", "mlp_dim")
        require(
            self.experts_per_token <= self.num_experts,
            f"ExpertsConfig.experts_per_token is {self.experts_per_token}; it can be num_experts"
            f" {self.num_experts} at most",
        )


@dataclass(frozen=True)
class ModelConfig:
    """A Llama-3-style decoder: its weights' shapes and the function they stand for.

    Attributes:
        name: as printed.
        vocab_size: V, rows of the embedding; at least the vocabulary's size.
        embed_dim: D.
        mlp_dim: F, width of the SwiGLU feed-forward; unused with experts, which have their own.
        num_layers: decoder layers.
        num_heads: N, query heads.
        num_kv_heads: K, key/value heads; divides N (grouped-query attention).
        head_dim: H; even, since rotary embedding turns pairs.
        rope_theta: base of the rotary frequencies.
        rope_scaling: Llama 3's scaling of them, if any.
        norm_epsilon: added to the mean square in RMSNorm.
        tied_embeddings: whether the output projection is the embedding.
        max_positions: positions that the model was made for; longer rows are refused.
        experts: in place of the feed-forward of every layer, if any.
    """

    name: str
    vocab_size: int
    embed_dim: int
    mlp_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float = 500_000.0
    rope_scaling: RopeScaling | None = None
    norm_epsilon: float = 1e-5
    tied_embeddings: bool = False
    max_positions: int = 8192
    experts: ExpertsConfig | None = None

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "embed_dim", "mlp_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim")
        positive(self, *sizes, "rope_theta", "norm_epsilon", "max_positions")
        require(
            self.num_heads % self.num_kv_heads == 0,
            f"ModelConfig.num_kv_heads is {self.num_kv_heads}; it must divide num_heads {self.num_heads}",
        )
        require(self.head_dim % 2 == 0, f"ModelConfig.head_dim is {self.head_dim}; rotary embedding needs an even one")

    @property
    def num_parameters(self) -> int:
        """All weights, those of every expert among them; the embedding counted once where it is tied."""
        layer = self._attention_parameters + self._feed_forward_parameters() + 2 * self.embed_dim
        embeddings = (1 if self.tied_embeddings else 2) * self.vocab_size * self.embed_dim
        return self.num_layers * layer + self.embed_dim + embeddings

    @property
    def num_matmul_parameters(self) -> int:
        """Weights that every token is multiplied by: no embedding look-up, no norms; the output projection counts.

        Of the experts, as many as a token is computed by; and the router.
        """
        experts = self.experts.experts_per_token if self.experts else None
        layer = self._attention_parameters + self._feed_forward_parameters(experts)
        return self.num_layers * layer + self.vocab_size * self.embed_dim

    @property
    def _attention_parameters(self) -> int:
        return self.embed_dim * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)

    def _feed_forward_parameters(self, experts: int | None = None) -> int:
        """Of one layer, with `experts` of its experts; with all of them by default."""
        if self.experts is None:
            return 3 * self.embed_dim * self.mlp_dim
        count = self.experts.num_experts if experts is None else experts
        return self.embed_dim * (self.experts.num_experts + 3 * count * self.experts.mlp_dim)

    def flops_per_token(self, length: int) -> float:
        """Training FLOPs of one token in a row of `length`: 6 per matmul weight + 6·layers·N·H·length of attention.

        The convention of the MFU figures: forward plus backward is three times forward, attention is causal (half of
        the 12·layers·N·H·length of full attention), and recomputation for remat is not counted as useful.
        """
        attention = 6 * self.num_layers * self.num_heads * self.head_dim * length
        return float(6 * self.num_matmul_parameters + attention)
