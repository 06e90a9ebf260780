"""Gemma 3's text models (arXiv 2503.19786): Gemma 2 with queries and keys normed instead of capped scores, and windows
in five of six layers, which have rotary frequencies of their own."""

from hephaestus_jax.hf.families.common import (
    AFTER,
    ATTENTION,
    ATTENTION_NORM,
    BEFORE,
    EPSILON,
    HEAD_NORMS,
    SIZES,
    TIED,
    WholeNumber,
)
from hephaestus_jax.hf.families.family import Family
from hephaestus_jax.hf.families.fields import Value
from hephaestus_jax.hf.families.gemma2 import CONSTANTS, FEED_FORWARD, FUNCTION
from hephaestus_jax.hf.families.layers import Alternating
from hephaestus_jax.hf.families.rope import PositionsByLayer

FAMILY = Family(
    model_type="gemma3_text",
    architectures=("Gemma3ForCausalLM",),
    layout=(*BEFORE, ATTENTION_NORM, *ATTENTION, *HEAD_NORMS, *FEED_FORWARD, *AFTER),
    fields=(
        *SIZES,
        Value("num_key_value_heads", "num_kv_heads", absent=4),
        Value("head_dim", "head_dim", absent=256),
        PositionsByLayer(longest=131_072, theta=1e6, sliding_theta=1e4),
        EPSILON,
        TIED,
        WholeNumber("query_pre_attn_scalar", "attention_scale_dim", absent=256.0),
        Value("final_logit_softcapping", "logit_softcap", "number", absent=0.0, null=0.0),
        Alternating(window=4096, every=6, name="sliding_window_pattern"),
    ),
    function=FUNCTION | {"query_key_norm": "head"},
    constants=CONSTANTS | {"attn_logit_softcapping": ()},
)
