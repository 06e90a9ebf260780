"""Gemma 2 (arXiv 2408.00118): norms on both sides, a window in every other layer, and capped scores and logits."""

from hephaestus_jax.hf.families.common import (
    AFTER,
    ATTENTION,
    ATTENTION_NORM,
    BEFORE,
    EPSILON,
    LAYER,
    MLP,
    POST_ATTENTION_NORM,
    POST_MLP_NORM,
    SIZES,
    TIED,
    WholeNumber,
)
from hephaestus_jax.hf.families.family import Family
from hephaestus_jax.hf.families.fields import Value
from hephaestus_jax.hf.families.layers import Alternating
from hephaestus_jax.hf.families.rope import Positions
from hephaestus_jax.hf.families.weights import Weight

MLP_NORM = Weight("layers/mlp_norm/scale", LAYER + "pre_feedforward_layernorm.weight", "D", "D")
FEED_FORWARD = (POST_ATTENTION_NORM, MLP_NORM, *MLP, POST_MLP_NORM)
FUNCTION = {"norm_placement": "both", "norm_plus_one": True, "activation": "gelu_tanh", "scaled_embedding": True}
CONSTANTS = {
    "hidden_activation": ("gelu_pytorch_tanh",),
    "attention_bias": (False,),
    "use_bidirectional_attention": (False,),
}

FAMILY = Family(
    model_type="gemma2",
    architectures=("Gemma2ForCausalLM",),
    layout=(*BEFORE, ATTENTION_NORM, *ATTENTION, *FEED_FORWARD, *AFTER),
    fields=(
        *SIZES,
        Value("num_key_value_heads", "num_kv_heads", absent=4),
        Value("head_dim", "head_dim", absent=256),
        Positions(longest=8192),
        EPSILON,
        TIED,
        WholeNumber("query_pre_attn_scalar", "attention_scale_dim", absent=256.0),
        Value("attn_logit_softcapping", "attention_softcap", "number", absent=50.0, null=0.0),
        Value("final_logit_softcapping", "logit_softcap", "number", absent=30.0, null=0.0),
        Alternating(window=4096, every=2),
    ),
    function=FUNCTION,
    constants=CONSTANTS,
)
