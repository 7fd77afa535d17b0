"""The options for building the pocket reasoner, used by `start-agent pocket build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from start_agent.fields import Renamed, Runtime


class BuildOptions(BaseModel):
    """The options of a build. The defaults are those of the shipped weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output_dir: Annotated[Runtime[Path], Renamed("output")] = Field(
        description="Folder for the model, the tokenizer and build.json (Hugging Face layout)."
    )
    work: Runtime[Path | None] = Field(
        default=None, description="Folder for checkpoints and the log; by default `work` inside the output folder."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the corpus and of the initial weights.")
    steps: int = Field(default=3300, ge=1, description="Total optimizer steps.")
    rows: int = Field(default=16, ge=1, description="Packed rows per batch.")
    row_length: int = Field(default=512, ge=64, description="Tokens per packed row; longer texts are left out.")
    vocabulary: int = Field(default=1024, ge=300, le=65536, description="Maximum size of the vocabulary.")
    tokenizer_texts: int = Field(default=20000, ge=100, description="Texts that the tokenizer is trained on.")
    layers: int = Field(default=5, ge=1, description="Transformer layers.")
    width: int = Field(default=192, ge=32, description="Hidden size.")
    heads: int = Field(default=3, ge=1, description="Attention heads; width / heads is the head size (vLLM: 64).")
    feed_forward: int = Field(default=512, ge=32, description="Width of the gated feed-forward layers.")
    context: int = Field(default=1024, ge=64, description="Maximum sequence length, in tokens.")
    rope_theta: float = Field(default=10000.0, gt=0, description="Base of the rotary position embedding.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Peak learning rate.")
    warmup_steps: int = Field(default=150, ge=0, description="Steps of linear warm-up.")
    decay_share: float = Field(
        default=0.35, gt=0, le=1, description="Share of the steps, at the end, with learning rate decay."
    )
    final_rate: float = Field(default=0.02, ge=0, le=1, description="Final learning rate as a share of the peak.")
    weight_decay: float = Field(default=0.05, ge=0, description="Weight decay of the matrices.")
    max_grad_norm: Annotated[float, Renamed("clip")] = Field(
        default=1.0, gt=0, description="Gradient clipping: maximum norm."
    )
    threads: Runtime[int | None] = Field(default=None, ge=1, description="CPU threads; by default torch's.")
    device: Runtime[Literal["auto", "cpu", "cuda"]] = Field(default="auto", description="Device to train on.")
    compile: Runtime[bool] = Field(default=True, description="Compile the model: twice as fast, needs a C++ compiler.")
    save_steps: Annotated[Runtime[int], Renamed("checkpoint_every")] = Field(
        default=500, ge=1, description="Steps between checkpoints."
    )
    logging_steps: Annotated[Runtime[int], Renamed("log_every")] = Field(
        default=20, ge=1, description="Steps between lines of the log."
    )

    @model_validator(mode="after")
    def _fits(self) -> BuildOptions:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.row_length > self.context:
            raise ValueError(f"row_length {self.row_length} is longer than context {self.context}")
        return self

    @property
    def work_folder(self) -> Path:
        """The folder for checkpoints and the log."""
        return self.work if self.work is not None else self.output_dir / "work"
