"""What a model is: its weights' shapes and the function that they stand for; `config` says how it is computed.

Sizes are named by one letter throughout the package: V vocabulary, D embedding, F feed-forward, N query heads,
K key/value heads, H head dimension, B rows of the global batch, L tokens of a row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from hephaestus_jax.errors import UserError

LayerKind = Literal["full", "sliding", "unrotated"]
"""What attention of a layer sees; `ModelConfig.layer_pattern`."""


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


def one_of(config: object, name: str, known: Sequence[str]) -> None:
    """Raises unless that field of a dataclass is one of those words."""
    value = getattr(config, name)
    require(value in known, f"{type(config).__name__}.{name} is {value!r}; it must be one of {', '.join(known)}")


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
class LinearRopeScaling:
    """Position interpolation (arXiv 2306.15595, `rope_type: linear`): every rotary frequency divided by `factor`."""

    factor: float

    def __post_init__(self) -> None:
        positive(self, "factor")


@dataclass(frozen=True)
class YarnRopeScaling:
    """YaRN (arXiv 2309.00071, `rope_type: yarn`): slow pairs interpolated, fast ones kept, those between mixed.

    A pair that turns at least `beta_fast` times within `original_max_positions` is kept, one that turns at most
    `beta_slow` times is divided by `factor`; the share between grows linearly with the pair's number.

    Attributes:
        attention_factor: multiplied into the rotated queries and keys; 0 for the paper's 0.1 · ln(factor) + 1.
    """

    factor: float
    original_max_positions: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 0.0

    def __post_init__(self) -> None:
        positive(self, "factor", "original_max_positions", "beta_fast", "beta_slow")
        at_least_zero(self, "attention_factor")
        require(
            self.beta_slow < self.beta_fast,
            f"YarnRopeScaling.beta_slow {self.beta_slow} must be below beta_fast {self.beta_fast}",
        )


def _scaling_of(values: Mapping[str, Any]) -> RopeScaling | LinearRopeScaling | YarnRopeScaling:
    """The scaling that has these fields; no two have the same."""
    kinds = (RopeScaling, LinearRopeScaling, YarnRopeScaling)
    found = [kind for kind in kinds if {field.name for field in fields(kind)} == set(values)]
    if not found:
        raise TypeError(f"rope_scaling has {', '.join(map(str, values)) or 'nothing'}, which no scaling has")
    return found[0](**values)


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


_LORA_SIDES = {
    "query": ("embed", "heads"), "key": ("embed", "kv_heads"), "value": ("embed", "kv_heads"),
    "out": ("heads", "embed"), "gate": ("embed", "mlp"), "up": ("embed", "mlp"), "down": ("mlp", "embed"),
}  # fmt: skip
LORA_TARGETS = tuple(_LORA_SIDES)
"""Projections of a layer that an adapter can stand beside, those of the feed-forward last."""

_FEED_FORWARD = ("gate", "up", "down")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (LoRA, arXiv 2106.09685): x·W + scale · (x·A)·B, of which A and B alone are trained.

    Attributes:
        rank: R, between A and B.
        alpha: α of the scale α / R.
        targets: projections of every layer that have an adapter: "query", "key", "value" and "out" of the attention;
            "gate", "up" and "down" of a feed-forward without experts.
        rank_stabilised: whether the scale is α / √R (rsLoRA, arXiv 2312.03732).
    """

    rank: int
    alpha: float
    targets: tuple[str, ...] = ("query", "key", "value", "out")
    rank_stabilised: bool = False

    def __post_init__(self) -> None:
        positive(self, "rank", "alpha")
        known = set(self.targets) & set(LORA_TARGETS)
        require(
            0 < len(self.targets) == len(known),
            f"LoraConfig.targets is {self.targets!r}; give different ones of {', '.join(LORA_TARGETS)}",
        )

    @property
    def scale(self) -> float:
        """What (x·A)·B is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    def check(self, model: ModelConfig) -> None:
        """Passes if the model has such projections.

        Raises:
            UserError: a target is the feed-forward's, and the model has experts.
        """
        found = [target for target in self.targets if target in _FEED_FORWARD]
        require(
            model.experts is None or not found,
            f"LoraConfig.targets has {', '.join(found)}, and model {model.name!r} has experts in place of a"
            f" feed-forward, which adapters are not computed for; leave {'it' if len(found) == 1 else 'them'} out",
        )

    def num_parameters(self, model: ModelConfig) -> int:
        """Of all adapters of that model: R · (inputs + outputs) each."""
        heads, kv_heads = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
        sizes = {"embed": model.embed_dim, "mlp": model.mlp_dim, "heads": heads, "kv_heads": kv_heads}
        return model.num_layers * self.rank * sum(sizes[side] for name in self.targets for side in _LORA_SIDES[name])

    @staticmethod
    def from_json(json: Mapping[str, Any]) -> LoraConfig:
        """The adapters of what `dataclasses.asdict` makes, after JSON; raises as `ModelConfig.from_json` does."""
        return LoraConfig(**{**json, "targets": tuple(json["targets"])})


@dataclass(frozen=True)
class ModelConfig:
    """A decoder of the Llama, Mistral, Qwen, Gemma, OLMo or SmolLM kind: its weights' shapes and their function.

    The defaults are Llama 3's.

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
        rope_scaling: how they are changed for longer contexts, if at all.
        norm_epsilon: added to the mean square in RMSNorm.
        tied_embeddings: whether the output projection is the embedding.
        max_positions: positions that the model was made for; longer rows are refused.
        experts: in place of the feed-forward of every layer, if any.
        layer_pattern: what attention sees in each layer, repeated over the layers: "full" all earlier tokens of the
            segment, "sliding" the nearest `sliding_window` of them, "unrotated" all of them, without rotary positions
            (NoPE, arXiv 2501.18795).
        sliding_window: tokens that a query of a sliding layer sees, itself included; 0 where there is no such layer.
        sliding_rope_theta: base of the rotary frequencies of sliding layers, which are not scaled then (Gemma 3); 0 for
            the same frequencies as in the others.
        qkv_bias: whether queries, keys and values have a bias (Qwen 2).
        query_key_norm: RMSNorm of queries and keys before they are rotated: "none", of each head by itself ("head":
            Qwen 3, Gemma 3), or of all heads together ("all": OLMo 2).
        norm_placement: "before" attention and feed-forward; "after" each, before it is added to the residual stream
            (OLMo 2); or "both" (Gemma).
        norm_plus_one: whether a norm multiplies by 1 + its weight (Gemma) rather than by its weight.
        activation: of the gated feed-forward: "silu", or "gelu_tanh" (Gemma).
        scaled_embedding: whether embedded tokens are multiplied by √D (Gemma).
        attention_scale_dim: scores are divided by the root of it (Gemma's `query_pre_attn_scalar`); 0 for H.
        attention_softcap: c of the scores' c · tanh(scores / c) (Gemma 2, arXiv 2408.00118); 0 for none.
        logit_softcap: the same of the logits.
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
    rope_scaling: RopeScaling | LinearRopeScaling | YarnRopeScaling | None = None
    norm_epsilon: float = 1e-5
    tied_embeddings: bool = False
    max_positions: int = 8192
    experts: ExpertsConfig | None = None
    layer_pattern: tuple[LayerKind, ...] = ("full",)
    sliding_window: int = 0
    sliding_rope_theta: float = 0.0
    qkv_bias: bool = False
    query_key_norm: Literal["none", "head", "all"] = "none"
    norm_placement: Literal["before", "after", "both"] = "before"
    norm_plus_one: bool = False
    activation: Literal["silu", "gelu_tanh"] = "silu"
    scaled_embedding: bool = False
    attention_scale_dim: float = 0.0
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "embed_dim", "mlp_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim")
        positive(self, *sizes, "rope_theta", "norm_epsilon", "max_positions")
        require(
            self.num_heads % self.num_kv_heads == 0,
            f"ModelConfig.num_kv_heads is {self.num_kv_heads}; it must divide num_heads {self.num_heads}",
        )
        require(self.head_dim % 2 == 0, f"ModelConfig.head_dim is {self.head_dim}; rotary embedding needs an even one")
        zero = ("sliding_window", "sliding_rope_theta", "attention_scale_dim", "attention_softcap", "logit_softcap")
        at_least_zero(self, *zero)
        for name in ("query_key_norm", "norm_placement", "activation"):
            one_of(self, name, get_args(get_type_hints(type(self))[name]))
        self._check_pattern()

    def _check_pattern(self) -> None:
        pattern, kinds = self.layer_pattern, get_args(LayerKind)
        require(
            isinstance(pattern, tuple) and 0 < len(pattern) <= self.num_layers and set(pattern) <= set(kinds),
            f"ModelConfig.layer_pattern is {pattern!r}; give a tuple of {', '.join(kinds)}, no longer than num_layers"
            f" {self.num_layers}",
        )
        require(
            ("sliding" in pattern) == (self.sliding_window > 0),
            f"ModelConfig.sliding_window is {self.sliding_window} and layer_pattern {pattern!r}; sliding layers need a"
            " window, and a window needs sliding layers",
        )

    @property
    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """What attention sees, of each layer."""
        repeats = -(-self.num_layers // len(self.layer_pattern))
        return (self.layer_pattern * repeats)[: self.num_layers]

    @property
    def num_parameters(self) -> int:
        """All weights, those of every expert among them; the embedding counted once where it is tied."""
        norms = (4 if self.norm_placement == "both" else 2) * self.embed_dim
        layer = self._attention_parameters + self._attention_vectors + self._feed_forward_parameters() + norms
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

    @property
    def _attention_vectors(self) -> int:
        """Biases and norms inside the attention of one layer."""
        bias = self.head_dim * (self.num_heads + 2 * self.num_kv_heads) if self.qkv_bias else 0
        heads = {"none": 0, "head": 2, "all": self.num_heads + self.num_kv_heads}[self.query_key_norm]
        return bias + heads * self.head_dim

    def _feed_forward_parameters(self, experts: int | None = None) -> int:
        """Of one layer, with `experts` of its experts; with all of them by default."""
        if self.experts is None:
            return 3 * self.embed_dim * self.mlp_dim
        count = self.experts.num_experts if experts is None else experts
        return self.embed_dim * (self.experts.num_experts + 3 * count * self.experts.mlp_dim)

    @staticmethod
    def from_json(json: Mapping[str, Any]) -> ModelConfig:
        """The model of what `dataclasses.asdict` makes, after JSON; fields that are missing have their defaults.

        Raises:
            TypeError: a field is missing that has no default, or is unknown.
            UserError: a value is none that such a field can have.
        """
        values = dict(json)
        if (scaling := values.get("rope_scaling")) is not None:
            values["rope_scaling"] = _scaling_of(scaling)
        if (mixture := values.get("experts")) is not None:
            values["experts"] = ExpertsConfig(**mixture)
        if "layer_pattern" in values:
            values["layer_pattern"] = tuple(values["layer_pattern"])
        return ModelConfig(**values)

    def flops_per_token(self, length: int) -> float:
        """Training FLOPs of one token in a row of `length`: 6 per matmul weight + 12·N·H·(keys seen) of each layer.

        The convention of the MFU figures: forward plus backward is three times forward, attention is causal (a query
        sees length/2 keys on average, fewer under a window), and recomputation for remat is not counted as useful.
        """
        window = min(self.sliding_window, length)
        # Of the first `window` queries each sees half the window on average, every later one all of it.
        seen = {"sliding": window - window * window / (2 * length)}
        keys = sum(seen.get(kind, length / 2) for kind in self.layer_kinds)
        return 6.0 * self.num_matmul_parameters + 12 * self.num_heads * self.head_dim * keys
