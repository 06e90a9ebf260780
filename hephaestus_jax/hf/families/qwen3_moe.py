"""Qwen3-MoE (arXiv 2505.09388): Qwen 3 with a mixture of experts in every layer."""

from hephaestus_jax.hf.families.common import (
    AFTER,
    ATTENTION,
    ATTENTION_NORM,
    BEFORE,
    EPSILON,
    HEAD_NORMS,
    LAYER,
    MLP_NORM,
    SILU,
    SIZES,
    UNTIED,
    whole_heads,
)
from hephaestus_jax.hf.families.family import Family
from hephaestus_jax.hf.families.fields import Value
from hephaestus_jax.hf.families.layers import EveryLayer
from hephaestus_jax.hf.families.rope import Positions
from hephaestus_jax.hf.families.weights import Weight

EXPERT = LAYER + "mlp.experts.{expert}."

FAMILY = Family(
    model_type="qwen3_moe",
    architectures=("Qwen3MoeForCausalLM",),
    layout=(
        *BEFORE,
        ATTENTION_NORM,
        *ATTENTION,
        *HEAD_NORMS,
        MLP_NORM,
        Weight("layers/experts/router/kernel", LAYER + "mlp.gate.weight", "ED", "DE"),
        Weight("layers/experts/gate/kernel", EXPERT + "gate_proj.weight", "MD", "DM"),
        Weight("layers/experts/up/kernel", EXPERT + "up_proj.weight", "MD", "DM"),
        Weight("layers/experts/down/kernel", EXPERT + "down_proj.weight", "DM", "MD"),
        *AFTER,
    ),
    fields=(
        *SIZES,
        Value("moe_intermediate_size", "experts.mlp_dim", absent=768),
        Value("num_experts", "experts.num_experts", "count", absent=128, renamed="num_local_experts"),
        Value("num_experts_per_tok", "experts.experts_per_token", absent=8),
        Value("norm_topk_prob", "experts.normalise", "flag", absent=False),
        Value("num_key_value_heads", "num_kv_heads", absent=4),
        Value("head_dim", "head_dim", absent=whole_heads),
        Positions(longest=32_768),
        EPSILON,
        UNTIED,
        EveryLayer(window=4096, switch=True),
    ),
    function={"query_key_norm": "head"},
    constants={"hidden_act": SILU, "attention_bias": (False,), "decoder_sparse_step": (1,), "mlp_only_layers": ([],)},
)
