"""Estimates the cost of a training: parameters, GPU memory, steps, time. ``docs/how-to/scale.md`` shows its table.

Sources: ZeRO (arXiv 1910.02054, section 3): mixed precision with Adam uses 2 + 2 + 12 bytes per parameter, and stage 3
communicates 3 times the parameters per pass. PaLM (arXiv 2204.02311, appendix B): 6 floating-point operations per
parameter and token, and 12 * layers * width * length for attention, of which causal attention needs half.

Run ``python -m start_agent.papers.scale`` to print the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from start_agent.markdown import table

GB = 1e9


@dataclass(frozen=True, slots=True)
class Architecture:
    """A Qwen2-like decoder: grouped-query attention with biases on q, k and v, a gated feed-forward, untied head."""

    width: int
    layers: int
    heads: int
    key_value_heads: int
    feed_forward: int
    vocabulary: int

    @property
    def key_value_width(self) -> int:
        """Width of the keys, and of the values."""
        return self.width // self.heads * self.key_value_heads

    @property
    def parameters(self) -> int:
        """Total number of parameters."""
        attention = 2 * self.width**2 + self.width + 2 * (self.width + 1) * self.key_value_width
        layer = attention + 3 * self.width * self.feed_forward + 2 * self.width
        return self.layers * layer + 2 * self.vocabulary * self.width + self.width


QWEN2_32B = Architecture(5120, 64, 40, 8, 27648, 152064)  # config.json of Qwen/QwQ-32B-Preview


@dataclass(frozen=True, slots=True)
class Plan:
    """A training. The defaults are those of ``start-32b.yaml`` and the paper; the last four are assumptions.

    Attributes:
        model: the model; all parameters are trained.
        gpus: GPUs that share parameters, gradients and optimizer states.
        batch: packed sequences per step.
        micro_batch: packed sequences per forward pass and GPU.
        length: tokens of a packed sequence.
        rows, epochs: number of rows and epochs.
        mean_row: mean tokens of a row.
        live_parameters: parameters gathered at once; DeepSpeed's default of ``stage3_max_live_parameters``.
        peak_flops: bfloat16 operations per second of a GPU (A100: 312e12).
        utilization: share of that used by the model's operations (MFU).
    """

    model: Architecture = QWEN2_32B
    gpus: int = 32
    batch: int = 128
    micro_batch: int = 1
    length: int = 16384
    rows: int = 50_000
    epochs: int = 3
    mean_row: int = 8192
    live_parameters: int = 1_000_000_000
    peak_flops: float = 312e12
    utilization: float = 0.4

    @property
    def states_bytes(self) -> float:
        """Per GPU: bfloat16 parameters and gradients, float32 master copy and Adam's two moments."""
        return (2 + 2 + 12) * self.model.parameters / self.gpus

    @property
    def gathered_bytes(self) -> float:
        """Parameters gathered for the active layers, in bfloat16."""
        return 2.0 * self.live_parameters

    @property
    def checkpoints_bytes(self) -> float:
        """Activations kept by gradient checkpointing: the input of each layer, in bfloat16."""
        return 2.0 * self.micro_batch * self.length * self.model.width * self.model.layers

    @property
    def layer_bytes(self) -> float:
        """One recomputed layer in bfloat16 with its gradients: twice its activations.

        Per token: inputs and outputs of the two norms, q and the attention output (6 widths), k and v, and the gate,
        activation, up-projection and product of the feed-forward. Flash attention stores no scores.
        """
        values = 6 * self.model.width + 2 * self.model.key_value_width + 4 * self.model.feed_forward
        return 2 * 2.0 * values * self.micro_batch * self.length

    @property
    def head_bytes(self) -> float:
        """The output head: gathered weights (2 bytes), gradient (4), and a tile of 4096 x 32768 logits (4)."""
        return 6.0 * self.model.vocabulary * self.model.width + 4.0 * 4096 * 32768

    @property
    def full_logits_bytes(self) -> float:
        """Memory of the head without tiles: bfloat16 logits, their float32 copy, and its gradient."""
        return (2.0 + 4 + 4) * self.micro_batch * self.length * self.model.vocabulary

    @property
    def gpu_bytes(self) -> float:
        """Total memory per GPU; the head and a layer are never active at the same time."""
        return self.states_bytes + self.gathered_bytes + self.checkpoints_bytes + max(self.layer_bytes, self.head_bytes)

    @property
    def accumulation(self) -> int:
        """Gradient accumulation: passes per step and GPU."""
        return self.batch // (self.micro_batch * self.gpus)

    @property
    def tokens_per_step(self) -> int:
        """Tokens per step, with full sequences."""
        return self.batch * self.length

    @property
    def steps(self) -> int:
        """Total steps if packing fills all sequences."""
        return self.epochs * ceil(ceil(self.rows * self.mean_row / self.length) / self.batch)

    @property
    def most_steps(self) -> int:
        """Total steps if no two rows fit into one sequence."""
        return self.epochs * ceil(self.rows / self.batch)

    @property
    def flops_per_token(self) -> float:
        """Operations of the model, forward and backward, without recomputation."""
        return 6.0 * self.model.parameters + 6.0 * self.model.layers * self.model.width * self.length

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of all GPUs together."""
        return self.gpus * self.peak_flops * self.utilization / self.flops_per_token

    @property
    def seconds_per_step(self) -> float:
        """Seconds of an optimizer step."""
        return self.tokens_per_step / self.tokens_per_second

    @property
    def traffic_bytes(self) -> float:
        """Bytes received by each GPU per step: per pass, parameters are gathered twice and gradients scattered once."""
        return 3 * 2.0 * self.model.parameters * self.accumulation

    @property
    def checkpoint_bytes(self) -> float:
        """Size on disk: master copy and moments in float32, and the model in bfloat16."""
        return (12.0 + 2) * self.model.parameters


def plan_table(plan: Plan) -> str:
    """The plan as a Markdown table."""
    rows = {
        "parameters": f"{plan.model.parameters / 1e9:.2f} billion",
        "parameters, gradients and optimizer states, per GPU": _gb(plan.states_bytes),
        "parameters gathered for active layers, at most": _gb(plan.gathered_bytes),
        "activations kept by gradient checkpointing": _gb(plan.checkpoints_bytes),
        "one recomputed layer with its gradients": _gb(plan.layer_bytes),
        "output head, in tiles": _gb(plan.head_bytes),
        "**total memory per GPU**": f"**{_gb(plan.gpu_bytes)}**",
        "output head without tiles": _gb(plan.full_logits_bytes + plan.head_bytes - 4.0 * 4096 * 32768),
        "tokens per step": f"{plan.tokens_per_step:,}",
        "gradient accumulation (passes per step)": str(plan.accumulation),
        "steps": f"{plan.steps:,} (at most {plan.most_steps:,})",
        "operations per token": f"{plan.flops_per_token / 1e9:.0f} billion",
        "tokens per second, all GPUs": f"{plan.tokens_per_second:,.0f}",
        "seconds per step": f"{plan.seconds_per_step:.0f}",
        "received by each GPU per step": _gb(plan.traffic_bytes),
        "total hours": f"{plan.steps * plan.seconds_per_step / 3600:.1f}",
        "checkpoint on disk": _gb(plan.checkpoint_bytes),
    }
    return table(rows)


def _gb(size: float) -> str:
    return f"{size / GB:,.1f} GB"


if __name__ == "__main__":
    print(plan_table(Plan()), end="")  # noqa: T201
