"""Qwen 3 (arXiv 2505.09388): Llama with queries and keys normed head by head."""

from hephaestus_jax.hf.families.common import (
    AFTER,
    ATTENTION,
    ATTENTION_NORM,
    BEFORE,
    EPSILON,
    HEAD_NORMS,
    MLP,
    MLP_NORM,
    SILU,
    SIZES,
    UNTIED,
    as_many_as_heads,
)
from hephaestus_jax.hf.families.family import Family
from hephaestus_jax.hf.families.fields import Value
from hephaestus_jax.hf.families.layers import LateWindow
from hephaestus_jax.hf.families.rope import Positions

FAMILY = Family(
    model_type="qwen3",
    architectures=("Qwen3ForCausalLM",),
    layout=(*BEFORE, ATTENTION_NORM, *ATTENTION, *HEAD_NORMS, MLP_NORM, *MLP, *AFTER),
    fields=(
        *SIZES,
        Value("num_key_value_heads", "num_kv_heads", absent=32, null=as_many_as_heads),
        Value("head_dim", "head_dim", absent=128),
        Positions(longest=32_768),
        EPSILON,
        UNTIED,
        LateWindow(window=4096, first=28),
    ),
    function={"query_key_norm": "head"},
    constants={"hidden_act": SILU, "attention_bias": (False,)},
)
