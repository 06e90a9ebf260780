"""SmolLM3: Llama with every fourth layer without rotary positions (arXiv 2501.18795); SmolLM 2 is a Llama."""

from hephaestus_jax.hf.families.common import (
    EPSILON,
    LLAMA_LAYOUT,
    SILU,
    SIZES,
    TIED,
    as_many_as_heads,
    whole_heads,
)
from hephaestus_jax.hf.families.family import Family
from hephaestus_jax.hf.families.fields import Value
from hephaestus_jax.hf.families.layers import SomeUnrotated
from hephaestus_jax.hf.families.rope import Positions

FAMILY = Family(
    model_type="smollm3",
    architectures=("SmolLM3ForCausalLM",),
    layout=LLAMA_LAYOUT,
    fields=(
        *SIZES,
        Value("num_key_value_heads", "num_kv_heads", absent=4, null=as_many_as_heads),
        Value("head_dim", "head_dim", absent=whole_heads),
        Positions(longest=32_768, theta=2e6),
        EPSILON,
        TIED,
        SomeUnrotated(every=4),
    ),
    constants={"hidden_act": SILU, "attention_bias": (False,), "mlp_bias": (False,)},
)
