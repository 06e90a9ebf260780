"""Mixtral (arXiv 2401.04088): Mistral with a mixture of experts in every layer."""

from hephaestus_jax.hf.families.common import (
    AFTER,
    ATTENTION,
    ATTENTION_NORM,
    BEFORE,
    LAYER,
    MLP_NORM,
    SILU,
    SIZES,
    UNTIED,
    as_many_as_heads,
    whole_heads,
)
from hephaestus_jax.hf.families.family import Family
from hephaestus_jax.hf.families.fields import Value
from hephaestus_jax.hf.families.layers import EveryLayer
from hephaestus_jax.hf.families.rope import Positions
from hephaestus_jax.hf.families.weights import Weight

EXPERT = LAYER + "block_sparse_moe.experts.{expert}."

FAMILY = Family(
    model_type="mixtral",
    architectures=("MixtralForCausalLM",),
    layout=(
        *BEFORE,
        ATTENTION_NORM,
        *ATTENTION,
        MLP_NORM,
        Weight("layers/experts/router/kernel", LAYER + "block_sparse_moe.gate.weight", "ED", "DE"),
        Weight("layers/experts/gate/kernel", EXPERT + "w1.weight", "MD", "DM"),
        Weight("layers/experts/down/kernel", EXPERT + "w2.weight", "DM", "MD"),
        Weight("layers/experts/up/kernel", EXPERT + "w3.weight", "MD", "DM"),
        *AFTER,
    ),
    fields=(
        *SIZES,
        Value("intermediate_size", "experts.mlp_dim"),
        Value("num_local_experts", "experts.num_experts", "count", absent=8),
        Value("num_experts_per_tok", "experts.experts_per_token", absent=2),
        Value("num_key_value_heads", "num_kv_heads", absent=8, null=as_many_as_heads),
        Value("head_dim", "head_dim", absent=whole_heads),
        Positions(longest=131_072, theta=1e6),
        Value("rms_norm_eps", "norm_epsilon", "number", absent=1e-5),
        UNTIED,
        EveryLayer(window=0),
    ),
    function={"experts.normalise": True},
    constants={"hidden_act": SILU},
)
