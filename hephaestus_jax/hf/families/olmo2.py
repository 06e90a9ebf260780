"""OLMo 2 (arXiv 2501.00656): norms after attention and feed-forward, and of all queries and all keys together."""

from hephaestus_jax.hf.families.common import (
    AFTER,
    ATTENTION,
    BEFORE,
    LAYER,
    MLP,
    POST_ATTENTION_NORM,
    POST_MLP_NORM,
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

FAMILY = Family(
    model_type="olmo2",
    architectures=("Olmo2ForCausalLM",),
    layout=(
        *BEFORE,
        *ATTENTION,
        Weight("layers/attention/query_norm/scale", LAYER + "self_attn.q_norm.weight", "(NH)", "NH"),
        Weight("layers/attention/key_norm/scale", LAYER + "self_attn.k_norm.weight", "(KH)", "KH"),
        POST_ATTENTION_NORM,
        *MLP,
        POST_MLP_NORM,
        *AFTER,
    ),
    fields=(
        *SIZES,
        Value("num_key_value_heads", "num_kv_heads", absent=as_many_as_heads),
        Value("head_dim", "head_dim", absent=whole_heads),
        Positions(longest=2048),
        Value("rms_norm_eps", "norm_epsilon", "number", absent=1e-5),
        UNTIED,
        EveryLayer(),
    ),
    function={"query_key_norm": "all", "norm_placement": "after"},
    constants={"hidden_act": SILU, "attention_bias": (False,)},
)
