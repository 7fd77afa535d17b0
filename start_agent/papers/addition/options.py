"""The options of the addition experiment."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from start_agent.fields import Runtime
from start_agent.recipes.star.loop import StarOptions
from start_agent.training.options import SftOptions


class AdditionOptions(BaseModel):
    """Options of the experiment. The defaults are those of the report, and scaled from the paper where it has them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, description="seed of the problems, their draws and the order of training")
    iterations: int = Field(16, ge=1, description="iterations; all are run, so that the curves can be compared")
    first_steps: int = Field(40, ge=1, description="training steps of the first iteration; each has 20% more")
    problems: int = Field(
        1000, ge=5, description="problems drawn per iteration, from ten times as many (paper: 10,000)"
    )
    evaluated: int = Field(420, ge=5, description="held-out problems, and half as many development problems")
    learning_rate: float = Field(1e-3, gt=0, description="learning rate, with and without scratchpad")
    batch_size: int = Field(32, ge=1, description="rows per step")
    threads: Runtime[int] = Field(1, ge=1, description="CPU threads of torch; more help little for this small model")
    make_base: bool = Field(False, description="pre-train the base (minutes) instead of using the one that ships")

    @classmethod
    def quick(cls, seed: int = 0) -> AdditionOptions:
        """Options for a smoke test of about a minute."""
        return cls(seed=seed, iterations=2, first_steps=10, problems=100, evaluated=60)

    def loop(self, *, rationalize: bool) -> StarOptions:
        """The options of the loop."""
        return StarOptions(
            iterations=self.iterations,
            patience=self.iterations,
            first_steps=self.first_steps,
            rationalize=rationalize,
            few_shot="never",  # the base knows the format from its documents
            problems=self.problems,
            seed=self.seed,
        )

    def training(self) -> SftOptions:
        """The options of fine-tuning."""
        return SftOptions(
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            per_device_train_batch_size=self.batch_size,
            warmup_ratio=0.1,
            lr_scheduler_type="linear",
            max_length=256,
            group_by_length=True,
            bf16=False,
            gradient_checkpointing=False,
            device="cpu",
            threads=self.threads,
            save_steps=100_000,  # no checkpoints: iterations are short and simply run again
            logging_steps=20,
        )
