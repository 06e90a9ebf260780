"""Qwen 2 and 2.5 (arXiv 2407.10671, 2412.15115): Llama with biases of queries, keys and values."""

from hephaestus_jax.hf.families.common import (
    AFTER,
    ATTENTION,
    ATTENTION_BIASES,
    ATTENTION_NORM,
    BEFORE,
    EPSILON,
    MLP,
    MLP_NORM,
    SILU,
    SIZES,
    UNTIED,
    as_many_as_heads,
    whole_heads,
)
from hephaestus_jax.hf.families.family import Family
from hephaestus_jax.hf.families.fields import Value
from hephaestus_jax.hf.families.layers import LateWindow
from hephaestus_jax.hf.families.rope import Positions

FAMILY = Family(
    model_type="qwen2",
    architectures=("Qwen2ForCausalLM",),
    layout=(*BEFORE, ATTENTION_NORM, *ATTENTION, *ATTENTION_BIASES, MLP_NORM, *MLP, *AFTER),
    fields=(
        *SIZES,
        Value("num_key_value_heads", "num_kv_heads", absent=32, null=as_many_as_heads),
        Value("head_dim", "head_dim", absent=whole_heads),
        Positions(longest=32_768),
        EPSILON,
        UNTIED,
        LateWindow(window=4096, first=28),
    ),
    function={"qkv_bias": True},
    constants={"hidden_act": SILU},
)
