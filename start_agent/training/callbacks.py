"""Trainer callbacks that check and report the loss, evaluate the model, and keep the models of epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import TrainerCallback

from start_agent.errors import TrainingError
from start_agent.training.evaluation import Evaluation, evaluate
from start_agent.training.options import SftOptions
from start_agent.training.validation import check_packing

_EVALUATION = "evaluation"  # key of evaluations in the trainer's history, which is saved with each checkpoint


@dataclass(frozen=True, slots=True)
class Step:
    """A point of the loss curve.

    Attributes:
        step: optimizer steps done.
        steps: optimizer steps in total.
        loss: nats per trained token, averaged since the last point.
        learning_rate: learning rate at this step.
        gradient_norm: norm of the gradient before clipping.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    gradient_norm: float


Listener = Callable[[Step | Evaluation], None]
"""Called with each point of the loss curve and each evaluation."""


def curve_of(history: Sequence[Mapping[str, Any]], steps: int) -> list[Step]:
    """The loss curve in a trainer's history; ``steps`` is the total number of optimizer steps."""
    return [_step_of(record, steps) for record in history if "loss" in record]


def evaluations_of(history: Sequence[Mapping[str, Any]]) -> list[Evaluation]:
    """The evaluations in a trainer's history."""
    return [Evaluation(**record[_EVALUATION]) for record in history if _EVALUATION in record]


class LossReport(TrainerCallback):  # type: ignore[misc]  # untyped
    """Reports each point of the loss curve; stops a run that diverges or whose packed rows see each other."""

    def __init__(self, trainer: Any, options: SftOptions, listener: Listener | None) -> None:
        self._trainer, self._options, self._listener = trainer, options, listener

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Check packing once the model is set up for training. Raises ConfigError."""
        if self._options.packing:
            check_packing(self._trainer.model, self._trainer.data_collator)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Always log the last step."""
        control.should_log |= state.global_step >= state.max_steps

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Report a point. Raises TrainingError if the loss or the gradient norm is NaN or infinite."""
        if not logs or "loss" not in logs:
            return
        step = _step_of({**logs, "step": state.global_step}, state.max_steps)
        if not (math.isfinite(step.loss) and math.isfinite(step.gradient_norm)):
            raise TrainingError(
                f"training diverged: at step {step.step} the loss is {step.loss}, the gradient norm "
                f"{step.gradient_norm}; check the rows, or lower --learning-rate"
            )
        if self._listener is not None and state.is_world_process_zero:
            self._listener(step)


class Evaluations(TrainerCallback):  # type: ignore[misc]  # untyped
    """Evaluates the model on held-out rows: before the first step, every ``eval_steps`` steps, and after the last.

    Runs before the trainer saves the checkpoint of a step, so that a resumed run keeps all evaluations.
    """

    def __init__(
        self, trainer: Any, rows: Sequence[Mapping[str, Any]], eval_steps: int, listener: Listener | None
    ) -> None:
        self._trainer, self._rows, self._every, self._listener = trainer, rows, eval_steps, listener

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate the untrained model as the baseline."""
        if state.global_step == 0:
            self._evaluate(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """See the class."""
        if state.global_step % self._every == 0 or state.global_step >= state.max_steps:
            self._evaluate(state)

    def _evaluate(self, state: Any) -> None:
        found = evaluate(self._trainer, self._rows)
        state.log_history.append({"step": found.step, _EVALUATION: asdict(found)})
        if self._listener is not None and state.is_world_process_zero:
            self._listener(found)


class EpochEnds(TrainerCallback):  # type: ignore[misc]  # untyped
    """Calls ``keep`` with the number of each finished epoch, before the checkpoint of its last step is saved."""

    def __init__(self, keep: Callable[[int], None]) -> None:
        self._keep = keep

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """See the class."""
        epoch = round(state.epoch)
        if epoch and math.isclose(state.epoch, epoch, abs_tol=1e-6):
            self._keep(epoch)


def _step_of(record: Mapping[str, Any], steps: int) -> Step:
    """The point in a record of the trainer's history."""
    return Step(
        int(record["step"]),
        steps,
        float(record["loss"]),
        float(record["learning_rate"]),
        float(record.get("grad_norm") or 0.0),
    )
