"""What a training takes, on paper: parameters, memory of a GPU, steps, time. ``docs/how-to/scale.md`` shows its table.

Sources: ZeRO (arXiv 1910.02054, section 3): mixed precision with Adam holds 2 + 2 + 12 bytes a parameter, and stage 3
moves 3 times the parameters in a pass. PaLM (arXiv 2204.02311, appendix B): 6 floating-point operations a parameter and
token, and 12 * layers * width * length for the attention, of which causal attention needs half.

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
        """Of the keys, and of the values."""
        return self.width // self.heads * self.key_value_heads

    @property
    def parameters(self) -> int:
        """In all."""
        attention = 2 * self.width**2 + self.width + 2 * (self.width + 1) * self.key_value_width
        layer = attention + 3 * self.width * self.feed_forward + 2 * self.width
        return self.layers * layer + 2 * self.vocabulary * self.width + self.width


QWEN2_32B = Architecture(5120, 64, 40, 8, 27648, 152064)  # config.json of Qwen/QwQ-32B-Preview


@dataclass(frozen=True, slots=True)
class Plan:
    """A training. The defaults are ``start-32b.yaml``'s and the paper's; the last four are assumptions.

    Attributes:
        model: what is trained, all of it.
        gpus: that share parameters, gradients and optimizer states.
        batch: packed sequences in a step.
        micro_batch: packed sequences at once in a GPU.
        length: tokens of a packed sequence.
        rows, epochs: of the data.
        mean_row: tokens of a row.
        live_parameters: gathered at once; DeepSpeed's default bound ``stage3_max_live_parameters``.
        peak_flops: of a GPU in bfloat16, a second (A100: 312e12).
        utilization: share of it that the model's own operations get (MFU).
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
        """A GPU's share: bfloat16 parameters and gradients, float32 master copy and Adam's two moments."""
        return (2 + 2 + 12) * self.model.parameters / self.gpus

    @property
    def gathered_bytes(self) -> float:
        """Parameters that are gathered for the layers at work, in bfloat16."""
        return 2.0 * self.live_parameters

    @property
    def checkpoints_bytes(self) -> float:
        """What gradient checkpointing keeps: the input of each layer, in bfloat16."""
        return 2.0 * self.micro_batch * self.length * self.model.width * self.model.layers

    @property
    def layer_bytes(self) -> float:
        """One layer computed again, in bfloat16, with its gradients: twice its activations.

        A token's: the two norms' inputs and outputs, q and the attention's output (6 widths), k and v, and of the
        feed-forward gate, activation, up and product. Flash attention keeps no scores.
        """
        values = 6 * self.model.width + 2 * self.model.key_value_width + 4 * self.model.feed_forward
        return 2 * 2.0 * values * self.micro_batch * self.length

    @property
    def head_bytes(self) -> float:
        """The head: its gathered weights (2 bytes), their gradient (4), and a tile of 4096 x 32768 logits (4)."""
        return 6.0 * self.model.vocabulary * self.model.width + 4.0 * 4096 * 32768

    @property
    def full_logits_bytes(self) -> float:
        """What the head would take without tiles: bfloat16 logits, their float32 copy, its gradient."""
        return (2.0 + 4 + 4) * self.micro_batch * self.length * self.model.vocabulary

    @property
    def gpu_bytes(self) -> float:
        """In sum; the head and a layer are never at work at the same time."""
        return self.states_bytes + self.gathered_bytes + self.checkpoints_bytes + max(self.layer_bytes, self.head_bytes)

    @property
    def accumulation(self) -> int:
        """Passes of each GPU in a step."""
        return self.batch // (self.micro_batch * self.gpus)

    @property
    def tokens_per_step(self) -> int:
        """In full sequences."""
        return self.batch * self.length

    @property
    def steps(self) -> int:
        """In all, where packing fills its sequences."""
        return self.epochs * ceil(ceil(self.rows * self.mean_row / self.length) / self.batch)

    @property
    def most_steps(self) -> int:
        """In all, where no two rows fit a sequence."""
        return self.epochs * ceil(self.rows / self.batch)

    @property
    def flops_per_token(self) -> float:
        """Of the model itself, forward and backward; what checkpointing computes again is not counted."""
        return 6.0 * self.model.parameters + 6.0 * self.model.layers * self.model.width * self.length

    @property
    def tokens_per_second(self) -> float:
        """Of all GPUs together."""
        return self.gpus * self.peak_flops * self.utilization / self.flops_per_token

    @property
    def seconds_per_step(self) -> float:
        """Of an optimizer step."""
        return self.tokens_per_step / self.tokens_per_second

    @property
    def traffic_bytes(self) -> float:
        """What each GPU receives in a step: parameters gathered twice and gradients scattered once, in each pass."""
        return 3 * 2.0 * self.model.parameters * self.accumulation

    @property
    def checkpoint_bytes(self) -> float:
        """On disk: master copy and moments in float32, and the model in bfloat16."""
        return (12.0 + 2) * self.model.parameters


def plan_table(plan: Plan) -> str:
    """The plan as a Markdown table."""
    rows = {
        "parameters": f"{plan.model.parameters / 1e9:.2f} billion",
        "a GPU's share of parameters, gradients, optimizer states": _gb(plan.states_bytes),
        "parameters gathered for the layers at work, at most": _gb(plan.gathered_bytes),
        "activations that checkpointing keeps": _gb(plan.checkpoints_bytes),
        "one layer computed again, with its gradients": _gb(plan.layer_bytes),
        "the head, in tiles": _gb(plan.head_bytes),
        "**memory of a GPU, in sum**": f"**{_gb(plan.gpu_bytes)}**",
        "the head, were its logits whole": _gb(plan.full_logits_bytes + plan.head_bytes - 4.0 * 4096 * 32768),
        "tokens in a step": f"{plan.tokens_per_step:,}",
        "passes of each GPU in a step": str(plan.accumulation),
        "steps": f"{plan.steps:,} (at most {plan.most_steps:,})",
        "operations a token": f"{plan.flops_per_token / 1e9:.0f} billion",
        "tokens a second, of all GPUs": f"{plan.tokens_per_second:,.0f}",
        "seconds a step": f"{plan.seconds_per_step:.0f}",
        "received by each GPU in a step": _gb(plan.traffic_bytes),
        "hours in all": f"{plan.steps * plan.seconds_per_step / 3600:.1f}",
        "a checkpoint on disk": _gb(plan.checkpoint_bytes),
    }
    return table(rows)


def _gb(size: float) -> str:
    return f"{size / GB:,.1f} GB"


if __name__ == "__main__":
    print(plan_table(Plan()), end="")  # noqa: T201
