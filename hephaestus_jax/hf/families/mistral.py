"""Mistral (arXiv 2310.06825): Llama with a sliding window in every layer; later ones have none (`null`)."""

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
    model_type="mistral",
    architectures=("MistralForCausalLM",),
    layout=LLAMA_LAYOUT,
    fields=(
        *SIZES,
        Value("num_key_value_heads", "num_kv_heads", absent=8, null=as_many_as_heads),
        Value("head_dim", "head_dim", absent=whole_heads),
        Positions(longest=131_072),
        EPSILON,
        UNTIED,
        EveryLayer(window=4096),
    ),
    constants={"hidden_act": SILU},
)
