"""The same step by PyTorch and `transformers`: LlamaForCausalLM, AdamW and clipping as PyTorch offers them.

PyTorch's quickest settings that compute the same: scaled dot-product attention, fused AdamW, the cross-entropy of all
positions in one call, gradients set to none. The mask of a packed row is made in each step, as ours is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hephaestus_jax.config import ModelConfig, RopeScaling
from hephaestus_jax.devices import memory_in_use
from hephaestus_jax.errors import UserError
from hephaestus_jax.versions import versions_of
from tools.benchmark.steps.spec import Rows, StepSpec, batches, tensors

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_IGNORED = -100
_LLAMA_HAS = ("rope_theta", "rope_scaling", "norm_epsilon", "tied_embeddings", "max_positions")  # besides sizes


class Theirs:
    """The model, its optimizer and its rows."""

    def __init__(self, spec: StepSpec) -> None:
        if spec.platform == "gpu" and not torch.cuda.is_available():
            raise UserError("PyTorch sees no GPU; install one that is built for CUDA")
        torch.set_num_threads(spec.threads)
        self.spec = spec
        self.device = torch.device("cuda" if spec.platform == "gpu" else "cpu")
        self.model = _model(spec, self.device)
        self.optimizer = _optimizer(spec, self.model)
        self.batches = _endless([_to_device(rows, self.device) for rows in batches(spec)])
        loss: Callable[..., torch.Tensor] = self._loss
        self.loss = torch.compile(loss) if spec.torch_compile else loss
        self.first_step_seconds = 0.0

    def _loss(
        self, tokens: torch.Tensor, segments: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor
    ) -> Any:
        """Mean cross-entropy over the weighted targets."""
        with self._autocast():
            # The other implementations find the texts of a row by the positions, which begin anew with each.
            mask = _mask(segments) if self.spec.torch_attention in ("sdpa", "eager") else None
            hidden = self.model.model(input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False)
            logits = self.model.lm_head(hidden.last_hidden_state)
        flat = logits.flatten(0, 1).float()
        return torch.nn.functional.cross_entropy(flat, targets.flatten(), ignore_index=_IGNORED)

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.spec.dtype == self.spec.param_dtype:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.spec.dtype])

    def advance(self, steps: int) -> list[tuple[float, float]]:
        """Takes that many steps; the loss and gradient norm of each, fetched at the end."""
        started = time.perf_counter()
        sent = []
        for _ in range(steps):
            loss = self.loss(*next(self.batches))
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(
                self.model.parameters(), self.spec.optimizer.clip_norm or float("inf"), foreach=True
            )
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            sent.append((loss.detach(), norm))
        values = [(loss.item(), norm.item()) for loss, norm in sent]
        self.first_step_seconds = self.first_step_seconds or time.perf_counter() - started
        return values

    def facts(self) -> dict[str, Any]:
        """What the result says of this side besides its speed."""
        spec, on_gpu = self.spec, self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() if on_gpu else memory_in_use([]).peak
        under = f"autocast to {spec.dtype}" if spec.dtype != spec.param_dtype else f"all in {spec.dtype}"
        words = [f"attention {spec.torch_attention!r}", "fused AdamW"]
        words += ["torch.compile"] * spec.torch_compile + ["gradient checkpointing"] * spec.torch_checkpointing
        return {
            "step": f"LlamaForCausalLM, {', '.join(words)}",
            "dtypes": f"{under}, parameters and both moments {spec.param_dtype}, loss float32",
            "first_step_s": round(self.first_step_seconds, 2),
            "memory_of": "device" if on_gpu else "process",
            "peak_memory_mib": round(peak / 2**20),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "versions": versions_of("torch", "transformers"),
        }

    def product_rate(self, size: int, rounds: int) -> float:
        """FLOP/s of a square matrix product in the step's dtype, the median of `rounds`."""
        a, b = (torch.randn(size, size, device=self.device).to(_DTYPES[self.spec.dtype]) for _ in range(2))

        def product() -> None:
            torch.mm(a, b)
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        product()
        seconds = []
        for _ in range(rounds):
            started = time.perf_counter()
            product()
            seconds.append(time.perf_counter() - started)
        return 2 * size**3 / float(np.median(seconds))


def llama_config(model: ModelConfig) -> LlamaConfig:
    """That architecture as transformers describes it.

    Raises:
        UserError: it is not Llama's.
    """
    scaling = model.rope_scaling
    others = [field for field in dataclasses.fields(ModelConfig) if field.default is not dataclasses.MISSING]
    plain: dict[str, Any] = {field.name: field.default for field in others if field.name not in _LLAMA_HAS}
    if dataclasses.replace(model, **plain) != model or not (scaling is None or isinstance(scaling, RopeScaling)):
        raise UserError(f"model {model.name!r} is not of Llama's architecture, the only one that this step is made for")
    if scaling is not None:
        rope: dict[str, Any] = {
            "rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_positions,
        }  # fmt: skip
    else:
        rope = {"rope_type": "default"}
    return LlamaConfig(
        vocab_size=model.vocab_size, hidden_size=model.embed_dim, intermediate_size=model.mlp_dim,
        num_hidden_layers=model.num_layers, num_attention_heads=model.num_heads,
        num_key_value_heads=model.num_kv_heads, head_dim=model.head_dim, rms_norm_eps=model.norm_epsilon,
        max_position_embeddings=model.max_positions, tie_word_embeddings=model.tied_embeddings,
        rope_parameters={**rope, "rope_theta": model.rope_theta},
    )  # fmt: skip


def _model(spec: StepSpec, device: torch.device) -> LlamaForCausalLM:
    config = llama_config(spec.model)
    config._attn_implementation = spec.torch_attention
    before = torch.get_default_dtype()
    torch.set_default_dtype(_DTYPES[spec.param_dtype])
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, _, _, values in tensors(spec):
            own.pop(name).copy_(torch.from_numpy(values))
    if own:
        raise UserError(f"transformers' model has weights that ours lacks: {', '.join(own)}")
    if spec.torch_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def _optimizer(spec: StepSpec, model: LlamaForCausalLM) -> torch.optim.AdamW:
    """AdamW of our hyperparameters; norms do not decay."""
    given = spec.optimizer
    matrices = [p for p in model.parameters() if p.ndim > 1]
    scales = [p for p in model.parameters() if p.ndim == 1]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": given.weight_decay}, {"params": scales, "weight_decay": 0.0}],
        lr=spec.schedule.peak, betas=(given.b1, given.b2), eps=given.epsilon, fused=True,
    )  # fmt: skip


def _mask(segments: torch.Tensor) -> torch.Tensor:
    """Which keys each query sees: bool [B, 1, L, L]."""
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    return (causal & (segments[:, :, None] == segments[:, None, :]))[:, None]


def _to_device(rows: Rows, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Tokens, segments, positions, and the targets with those that weigh nothing marked."""
    targets = np.full(rows.tokens.shape, _IGNORED, np.int64)
    targets[:, :-1] = np.where(rows.loss_weights[:, 1:] > 0, rows.tokens[:, 1:], _IGNORED)
    arrays = (rows.tokens.astype(np.int64), rows.segment_ids, rows.positions.astype(np.int64), targets)
    return tuple(torch.from_numpy(array).to(device) for array in arrays)


def _endless(items: list[Any]) -> Iterator[Any]:
    while True:
        yield from items
