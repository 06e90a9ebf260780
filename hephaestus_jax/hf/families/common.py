"""Lines that the families' pages share."""

from __future__ import annotations

from typing import Any

from hephaestus_jax.config import ModelConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.families.family import EMBEDDING, HEAD
from hephaestus_jax.hf.families.fields import JsonFields, Spelling, Value
from hephaestus_jax.hf.families.weights import Weight

LAYER = "model.layers.{layer}."

# ---- tensors

BEFORE = (Weight("embedder/embedding", EMBEDDING, "VD", "VD"),)
AFTER = (
    Weight("final_norm/scale", "model.norm.weight", "D", "D"),
    Weight("head/kernel", HEAD, "VD", "DV"),
)
ATTENTION = (
    Weight("layers/attention/query/kernel", LAYER + "self_attn.q_proj.weight", "(NH)D", "DNH"),
    Weight("layers/attention/key/kernel", LAYER + "self_attn.k_proj.weight", "(KH)D", "DKH"),
    Weight("layers/attention/value/kernel", LAYER + "self_attn.v_proj.weight", "(KH)D", "DKH"),
    Weight("layers/attention/out/kernel", LAYER + "self_attn.o_proj.weight", "D(NH)", "NHD"),
)
ATTENTION_BIASES = (
    Weight("layers/attention/query/bias", LAYER + "self_attn.q_proj.bias", "(NH)", "NH"),
    Weight("layers/attention/key/bias", LAYER + "self_attn.k_proj.bias", "(KH)", "KH"),
    Weight("layers/attention/value/bias", LAYER + "self_attn.v_proj.bias", "(KH)", "KH"),
)
HEAD_NORMS = (
    Weight("layers/attention/query_norm/scale", LAYER + "self_attn.q_norm.weight", "H", "H"),
    Weight("layers/attention/key_norm/scale", LAYER + "self_attn.k_norm.weight", "H", "H"),
)
MLP = (
    Weight("layers/mlp/gate/kernel", LAYER + "mlp.gate_proj.weight", "FD", "DF"),
    Weight("layers/mlp/up/kernel", LAYER + "mlp.up_proj.weight", "FD", "DF"),
    Weight("layers/mlp/down/kernel", LAYER + "mlp.down_proj.weight", "DF", "FD"),
)
ATTENTION_NORM = Weight("layers/attention_norm/scale", LAYER + "input_layernorm.weight", "D", "D")
MLP_NORM = Weight("layers/mlp_norm/scale", LAYER + "post_attention_layernorm.weight", "D", "D")
POST_ATTENTION_NORM = Weight("layers/attention_post_norm/scale", LAYER + "post_attention_layernorm.weight", "D", "D")
POST_MLP_NORM = Weight("layers/mlp_post_norm/scale", LAYER + "post_feedforward_layernorm.weight", "D", "D")

LLAMA_LAYOUT = (*BEFORE, ATTENTION_NORM, *ATTENTION, MLP_NORM, *MLP, *AFTER)

# ---- config.json


def whole_heads(fields: JsonFields) -> int:
    """The head dimension of a file that does not say it: embedding over heads."""
    embed, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    if embed % heads:
        raise UserError(
            f"{fields.where}: hidden_size {embed} is no multiple of num_attention_heads {heads}; give head_dim"
        )
    return embed // heads


def as_many_as_heads(fields: JsonFields) -> int:
    """Key/value heads where the file does not say it."""
    return fields.size("num_attention_heads")


SIZES = (
    Value("vocab_size", "vocab_size"),
    Value("hidden_size", "embed_dim"),
    Value("intermediate_size", "mlp_dim"),
    Value("num_hidden_layers", "num_layers", "count"),
    Value("num_attention_heads", "num_heads"),
)
EPSILON = Value("rms_norm_eps", "norm_epsilon", "number", absent=1e-6)
TIED = Value("tie_word_embeddings", "tied_embeddings", "flag", absent=True)
UNTIED = Value("tie_word_embeddings", "tied_embeddings", "flag", absent=False)
SILU = ("silu", "swish")


class WholeNumber(Value):
    """A field that transformers wants as a whole number; ours is a float, and 0 for the head dimension."""

    def __init__(self, name: str, ours: str, absent: float) -> None:
        super().__init__(name, ours, "number", absent)

    def write(self, model: ModelConfig, spelling: Spelling) -> dict[str, Any]:
        value = float(getattr(model, self.ours) or model.head_dim)
        return {self.name: int(value) if value.is_integer() else value}
