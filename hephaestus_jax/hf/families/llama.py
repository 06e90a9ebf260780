"""Llama 2, 3, 3.1 and 3.2 (arXiv 2307.09288, 2407.21783), and what is built alike, such as SmolLM 2."""

from hephaestus_jax.hf.families.common import (
    EPSILON,
    LLAMA_LAYOUT,
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

FAMILY = Family(
    model_type="llama",
    architectures=("LlamaForCausalLM", "LLaMAForCausalLM"),
    layout=LLAMA_LAYOUT,
    fields=(
        *SIZES,
        Value("num_key_value_heads", "num_kv_heads", absent=as_many_as_heads),
        Value("head_dim", "head_dim", absent=whole_heads),
        Positions(longest=2048),
        EPSILON,
        UNTIED,
        EveryLayer(),
    ),
    constants={"hidden_act": SILU, "attention_bias": (False,), "mlp_bias": (False,)},
)
