"""What a training run is told: frozen dataclasses that check themselves; what gin binds.

`ModelConfig` (`architecture`) belongs to the weights; `ComputeConfig` is how it is computed and does not change what it
is. `TrainConfig` holds everything else by part. Nothing here imports jax.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from hephaestus_jax.architecture import (
    ExpertsConfig,
    LinearRopeScaling,
    LoraConfig,
    ModelConfig,
    RopeScaling,
    YarnRopeScaling,
    at_least_zero,
    positive,
    require,
)

DType = Literal["float32", "bfloat16"]

REMAT_POLICIES = ("none", "dots", "dots_with_no_batch_dims", "attention", "full")


@dataclass(frozen=True)
class ComputeConfig:
    """How the decoder is computed.

    Attributes:
        dtype: of activations and matrix products; softmax statistics, norms' statistics and the loss stay float32.
        param_dtype: of the stored parameters.
        attention: name of an attention backend; one that cannot do what is asked is an error.
        experts: how the experts' products are computed (`model.grouped_products`); "auto": "ragged_dot" on TPUs and
            GPUs, "tiled" on CPUs.
        remat: what the backward pass computes again. "none": nothing; "dots": all but matrix products;
            "dots_with_no_batch_dims": all but products with weights; "attention": the attention only; "full": each
            layer, from its input.
        loss_chunk: positions of each row whose logits exist at a time; half a row at most.
    """

    dtype: DType = "bfloat16"
    param_dtype: DType = "float32"
    attention: str = "reference"
    experts: str = "auto"
    remat: str = "none"
    loss_chunk: int = 256

    def __post_init__(self) -> None:
        positive(self, "loss_chunk")
        require(
            self.remat in REMAT_POLICIES,
            f"ComputeConfig.remat is {self.remat!r}; known policies: {', '.join(REMAT_POLICIES)}",
        )


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; at most one is -1 and takes what the others leave.

    Attributes:
        data: replicates parameters and splits rows.
        fsdp: splits rows and parameters.
        expert: splits the experts, and rows and the other parameters as `fsdp` does.
        context: splits the tokens of each row, and parameters as `fsdp` does; for long rows.
        tensor: splits heads, feed-forward and vocabulary.
        slices: parts of the machine that only the data-centre network joins (TPU slices; processes where devices know
            of no slices). `data` is divided over them first, then `fsdp`.
    """

    data: int = 1
    fsdp: int = -1
    expert: int = 1
    context: int = 1
    tensor: int = 1
    slices: int = 1

    def __post_init__(self) -> None:
        for axis, size in self.axes.items():
            require(
                size == -1 or size >= 1, f"MeshConfig.{axis} is {size}; give a number of devices, or -1 for the rest"
            )
        free = [axis for axis, size in self.axes.items() if size == -1]
        require(len(free) <= 1, f"MeshConfig: {' and '.join(free)} are all -1; only one axis can take the rest")
        require(self.slices >= 1, f"MeshConfig.slices is {self.slices}; give the number of slices, 1 for one machine")

    @property
    def axes(self) -> dict[str, int]:
        """The size of each mesh axis, from the slowest to the fastest varying."""
        names = ("data", "fsdp", "expert", "context", "tensor")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class LossConfig:
    """What is minimised besides the cross-entropy.

    Attributes:
        z_loss: coefficient c of c · log²Z per token, which keeps the softmax normaliser near 1 (PaLM, section 5).
        load_balancing: coefficient of E · Σₑ fₑ · pₑ, where fₑ is the share of the tokens that expert e is among the
            experts of, and pₑ its mean probability; the mean over layers. Experts used evenly give `experts_per_token`.
            Tokens are all of the batch but padding. (Switch, arXiv 2101.03961, eq. 4; as transformers has it for
            Mixtral and Qwen3-MoE, but layer by layer.)
        router_z: coefficient of the mean square of the log-sum-exp of the router's logits (ST-MoE, arXiv 2202.08906,
            eq. 5), over the same tokens and layers.
    """

    z_loss: float = 0.0
    load_balancing: float = 0.0
    router_z: float = 0.0

    def __post_init__(self) -> None:
        at_least_zero(self, "z_loss", "load_balancing", "router_z")


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate by step.

    Warm-up from 0 is linear over `warmup_steps`; what follows is named by `kind`:
    "cosine" falls to `final_fraction · peak` at the end of the run; "wsd" (warm-up, stable, decay) stays at the peak
    and falls over the last `decay_steps` of the run; "constant" stays. Continual pre-training re-warms: it begins at
    `initial_fraction · peak`, the rate that the base run ended with, instead of 0.

    The schedule ends with the run, at `TrainConfig.train_steps`, and moves with it when a resumed run is made longer;
    `total_steps` fixes its end elsewhere.
    """

    kind: Literal["cosine", "wsd", "constant"] = "cosine"
    peak: float = 3e-4
    warmup_steps: int = 100
    initial_fraction: float = 0.0
    final_fraction: float = 0.1
    decay_steps: int = 0
    decay_shape: Literal["linear", "cosine", "sqrt"] = "linear"
    total_steps: int = 0

    def __post_init__(self) -> None:
        positive(self, "peak")
        at_least_zero(self, "warmup_steps", "decay_steps", "total_steps")
        for name in ("initial_fraction", "final_fraction"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"ScheduleConfig.{name} is {value}; it is a share of the peak, from 0 to 1")
        require(
            self.warmup_steps > 0 or self.initial_fraction == 0,
            "ScheduleConfig.initial_fraction is where warm-up begins, and warmup_steps is 0; set it too",
        )
        require(
            self.kind == "wsd" or self.decay_steps == 0,
            f"ScheduleConfig.decay_steps is {self.decay_steps}; only kind 'wsd' uses it, this one is {self.kind!r}",
        )
        require(
            self.kind != "wsd" or self.decay_steps > 0,
            "ScheduleConfig.decay_steps must be given for kind 'wsd'; 10 to 20 % of the run is usual",
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer; weight decay spares norms and biases.

    Attributes:
        kind: "adamw"; "adafactor" (factored second moment, least memory); "muon" (orthogonalised momentum for the
            matrices inside the layers, AdamW for embeddings, output projection and norms).
        b1, b2, epsilon: of AdamW.
        weight_decay: decoupled, times the learning rate.
        clip_norm: global gradient norm above which gradients are scaled down; 0 for none.
        moment_dtype: of the first moment (and Muon's momentum); second moments stay float32.
    """

    kind: Literal["adamw", "adafactor", "muon"] = "adamw"
    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    moment_dtype: DType = "float32"

    def __post_init__(self) -> None:
        positive(self, "epsilon")
        at_least_zero(self, "weight_decay", "clip_norm")
        for name in ("b1", "b2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"OptimizerConfig.{name} is {value}; it must be at least 0 and below 1")


@dataclass(frozen=True)
class GuardConfig:
    """What happens at a step whose loss or gradient is not finite, or whose gradient norm or loss is a spike.

    The step itself decides, on the devices: its update is dropped. With `on_bad_step` "skip" training goes on with the
    next rows, up to `max_skipped` such steps in a row; with "stop" the state freezes there and the run stops, naming
    the records of the rows.

    With "rollback" the run goes back to a checkpoint and on with later rows: those since that checkpoint, up to and
    with the bad step's, are left out for good, and recorded. (PaLM, section 5.1: "we re-started training from a
    checkpoint roughly 100 steps before the spike started, and skipped roughly 200–500 data batches, which cover the
    batches that were seen before and during the spike": `rollback_steps=100`, `rollback_skip_steps=300`.)

    Running means are over good steps, with a memory of 100 of them.

    Attributes:
        on_bad_step: "skip", "stop" or "rollback".
        max_skipped: consecutive skipped steps after which the run stops all the same.
        spike_factor: a gradient norm above this multiple of its running mean is bad; 0 for no such policy.
        loss_spike_factor: a loss above this multiple of its running mean is bad; 0 for no such policy.
        spike_after: good steps before the running means are trusted.
        rollback_steps: go back to a checkpoint at least so many steps before the bad one, where one is kept; 0 for the
            newest.
        rollback_skip_steps: leave out the rows of at least so many steps from that checkpoint on; 0 for those up to
            the bad step's.
        max_rollbacks: of the whole run; at the next bad step it stops.
    """

    on_bad_step: Literal["skip", "stop", "rollback"] = "skip"
    max_skipped: int = 20
    spike_factor: float = 0.0
    loss_spike_factor: float = 0.0
    spike_after: int = 100
    rollback_steps: int = 0
    rollback_skip_steps: int = 0
    max_rollbacks: int = 10

    def __post_init__(self) -> None:
        at_least_zero(self, "max_skipped", "spike_after", "rollback_steps", "rollback_skip_steps", "max_rollbacks")
        for name in ("spike_factor", "loss_spike_factor"):
            value = getattr(self, name)
            require(
                value == 0 or 1 < value < math.inf,
                f"GuardConfig.{name} is {value}; give a multiple above 1, or 0 for no such policy",
            )


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out loss, per slice.

    Attributes:
        every_steps: steps between evaluations; 0 for one at the end only.
        batch_size: rows at a time; 0 for the training batch size.
        max_rows: of each slice; 0 for all.
        files: the user's own, each "NAME=PATH" where PATH is a packed cache, or a file or folder of JSON lines, Parquet
            or plain text that is tokenised when the run starts.
        vocabulary: path of the tokenizer, needed for files that are not packed.
    """

    every_steps: int = 0
    batch_size: int = 0
    max_rows: int = 0
    files: tuple[str, ...] = ()
    vocabulary: str = ""

    def __post_init__(self) -> None:
        at_least_zero(self, "every_steps", "batch_size", "max_rows")
        names = [file.partition("=")[0] for file in self.files]
        for file, name in zip(self.files, names, strict=True):
            require(bool(name) and file != name, f"EvaluationConfig.files has {file!r}; write NAME=PATH")
        require(len(set(names)) == len(names), f"EvaluationConfig.files names two files alike: {', '.join(names)}")


@dataclass(frozen=True)
class CheckpointConfig:
    """When the state is saved, and which saves are kept. The last step is always saved.

    Attributes:
        every_steps: steps between saves; 0 for none by steps.
        every_minutes: minutes between saves; 0 for none by time.
        keep: newest checkpoints kept.
        keep_every_steps: checkpoints at multiples of this are kept for good; 0 for none.
        local_dir: folder on a disk of each host's own for saves between those; empty for none. After a failure the run
            goes on from the newest of them; a process on a fresh host gets its part from another replica's (`data`).
        local_every_steps: steps between them.
    """

    every_steps: int = 500
    every_minutes: float = 0.0
    keep: int = 3
    keep_every_steps: int = 0
    local_dir: str = ""
    local_every_steps: int = 0

    def __post_init__(self) -> None:
        at_least_zero(self, "every_steps", "every_minutes", "keep_every_steps", "local_every_steps")
        require(
            bool(self.local_dir) == bool(self.local_every_steps),
            f"CheckpointConfig.local_dir is {self.local_dir!r} and local_every_steps is {self.local_every_steps}; give"
            " both or neither",
        )
        require(self.keep >= 2, f"CheckpointConfig.keep is {self.keep}; keep 2 or more, in case the newest is damaged")


@dataclass(frozen=True)
class LoggingConfig:
    """What is written while training.

    Attributes:
        every_steps: steps between progress lines; metrics.jsonl and TensorBoard get every step.
        tensorboard: whether event files are written (needs `tensorboardX`).
        profile_steps: "FIRST-LAST" or one step, counted from 1, to trace into the run directory; empty for none.
        peak_tflops: dense bf16 peak of one device in 10¹² FLOP/s for the MFU; 0: known devices from a table.
        compilation_cache: folder of JAX's persistent compilation cache; empty for none.
    """

    every_steps: int = 10
    tensorboard: bool = True
    profile_steps: str = ""
    peak_tflops: float = 0.0
    compilation_cache: str = "~/.cache/hephaestus_jax/compilations"

    def __post_init__(self) -> None:
        positive(self, "every_steps")
        at_least_zero(self, "peak_tflops")
        if self.profile_steps:
            _ = self.profile_range

    @property
    def profile_range(self) -> range:
        """The steps to trace."""
        if not self.profile_steps:
            return range(0)
        first, dash, last = self.profile_steps.partition("-")
        last = last if dash else first
        good = first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)
        require(good, f"profile_steps is {self.profile_steps!r}; write FIRST-LAST, such as 10-12, counted from 1")
        return range(int(first), int(last) + 1)


@dataclass(frozen=True)
class TrainConfig:
    """One run.

    Attributes:
        run_dir: where everything the run writes goes; a second start there resumes.
        mixture: `mixture.json`, or the folder that holds it.
        model: the architecture.
        train_steps: optimizer steps of the whole run, resumed ones included.
        stop_after: step after which this process saves and ends, as if it had been asked to; 0 for none.
        batch_size: B, rows per step over all devices.
        microbatches: parts of a batch whose gradients are summed one after the other; the result does not change.
        seed: of the initial weights. The order of the rows has its own seed, in the mixture.
        init_from: run directory whose newest checkpoint gives the initial parameters; empty for fresh ones.
        init_optimizer: whether its optimizer state is taken over too.
        lora: adapters to train in place of the weights of `init_from`, which stay as they are; None to train these.
            Adapters are float32, whatever `compute.param_dtype` is.
    """

    run_dir: str
    mixture: str
    model: ModelConfig
    train_steps: int
    batch_size: int
    microbatches: int = 1
    stop_after: int = 0
    seed: int = 0
    init_from: str = ""
    init_optimizer: bool = False
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    lora: LoraConfig | None = None

    def __post_init__(self) -> None:
        positive(self, "train_steps", "batch_size", "microbatches")
        at_least_zero(self, "stop_after")
        require(bool(self.run_dir), "TrainConfig.run_dir is empty; give the folder that the run writes to")
        require(0 <= self.seed < 1 << 32, f"TrainConfig.seed is {self.seed}; it must be a 32-bit number, 0 or more")
        require(
            self.batch_size % self.microbatches == 0,
            f"TrainConfig.batch_size {self.batch_size} does not divide into {self.microbatches} microbatches",
        )
        require(
            bool(self.init_from) or not self.init_optimizer,
            "TrainConfig.init_optimizer needs init_from, a run directory",
        )
        for name in ("load_balancing", "router_z"):
            require(
                self.model.experts is not None or getattr(self.loss, name) == 0,
                f"LossConfig.{name} is {getattr(self.loss, name)}, and the model has no experts; set it to 0",
            )
        if self.lora is not None:
            self._check_lora(self.lora)
        require(self.train_steps < 1 << 31, f"TrainConfig.train_steps is {self.train_steps:,}; it must be below 2³¹")
        spent = self.schedule.warmup_steps + self.schedule.decay_steps
        require(
            self.schedule.kind != "wsd" or spent <= self.schedule_steps,
            f"ScheduleConfig: warm-up and decay take {spent} of {self.schedule_steps} steps; lower warmup_steps or"
            " decay_steps, or raise train_steps",
        )

    def _check_lora(self, lora: LoraConfig) -> None:
        lora.check(self.model)
        require(
            bool(self.init_from) and not self.init_optimizer,
            "TrainConfig.lora trains adapters of finished weights, with an optimizer of their own: give init_from, and"
            " leave init_optimizer out",
        )
        require(
            self.optimizer.kind != "muon",
            "OptimizerConfig.kind 'muon' is for whole matrices, an adapter is two factors of one; set it to 'adamw'",
        )

    @property
    def schedule_steps(self) -> int:
        """The step at which the learning rate's schedule ends."""
        return self.schedule.total_steps or self.train_steps

    def flops_per_token(self, length: int) -> float:
        """Training FLOPs of one token in a row of `length`, as `ModelConfig.flops_per_token` counts them.

        With `lora` a frozen matmul weight counts 4, since nobody asks for its gradient, and an adapter's 6.
        """
        per_token = self.model.flops_per_token(length)
        if self.lora is None:
            return per_token
        return per_token - 2.0 * self.model.num_matmul_parameters + 6.0 * self.lora.num_parameters(self.model)


MODEL_PARTS = (RopeScaling, LinearRopeScaling, YarnRopeScaling, ExpertsConfig)
"""What a gin file of a model may bind besides `ModelConfig`."""

PARTS = (
    *MODEL_PARTS, ModelConfig, LoraConfig, ComputeConfig, MeshConfig, LossConfig, ScheduleConfig, OptimizerConfig,
    GuardConfig, EvaluationConfig, CheckpointConfig, LoggingConfig,
)  # fmt: skip
"""What a gin file may bind besides `TrainConfig`."""
