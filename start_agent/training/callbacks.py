"""What happens between the steps of a training: its loss is checked and reported, models are evaluated and kept."""

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

_EVALUATION = "evaluation"  # the entry of the trainer's history that holds one: it is saved with each checkpoint


@dataclass(frozen=True, slots=True)
class Step:
    """A point of the loss curve.

    Attributes:
        step: optimizer steps done, of ``steps`` in all.
        loss: nats per trained token, the mean since the last point.
        learning_rate: at this step.
        gradient_norm: before clipping.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    gradient_norm: float


Listener = Callable[[Step | Evaluation], None]
"""Called with each point of the loss curve and each evaluation."""


def curve_of(history: Sequence[Mapping[str, Any]], steps: int) -> list[Step]:
    """The loss curve in a trainer's history, of ``steps`` optimizer steps in all."""
    return [_step_of(record, steps) for record in history if "loss" in record]


def evaluations_of(history: Sequence[Mapping[str, Any]]) -> list[Evaluation]:
    """The evaluations in a trainer's history."""
    return [Evaluation(**record[_EVALUATION]) for record in history if _EVALUATION in record]


class LossReport(TrainerCallback):  # type: ignore[misc]  # untyped
    """Reports each point of the loss curve; stops a run that would learn something wrong."""

    def __init__(self, trainer: Any, options: SftOptions, listener: Listener | None) -> None:
        self._trainer, self._options, self._listener = trainer, options, listener

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called when the model is as it will train. Raises ConfigError."""
        if self._options.packing:
            check_packing(self._trainer.model, self._trainer.data_collator)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The last step is always a point."""
        control.should_log |= state.global_step >= state.max_steps

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Raises TrainingError."""
        if not logs or "loss" not in logs:
            return
        step = _step_of({**logs, "step": state.global_step}, state.max_steps)
        if not (math.isfinite(step.loss) and math.isfinite(step.gradient_norm)):
            raise TrainingError(
                f"at step {step.step} the loss is {step.loss}, the gradient's norm {step.gradient_norm}: "
                "look at the rows, or lower --learning-rate"
            )
        if self._listener is not None and state.is_world_process_zero:
            self._listener(step)


class Evaluations(TrainerCallback):  # type: ignore[misc]  # untyped
    """Evaluates the model on rows held back: before the first step, every ``eval_steps``, after the last.

    At the end of a step the trainer has not saved its checkpoint yet, so that a resumed run has every evaluation.
    """

    def __init__(
        self, trainer: Any, rows: Sequence[Mapping[str, Any]], eval_steps: int, listener: Listener | None
    ) -> None:
        self._trainer, self._rows, self._every, self._listener = trainer, rows, eval_steps, listener

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The model before training is the measure of all later ones."""
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
    """Calls ``keep`` with the number of each epoch that ends, before the checkpoint of its last step is saved."""

    def __init__(self, keep: Callable[[int], None]) -> None:
        self._keep = keep

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """See the class."""
        epoch = round(state.epoch)
        if epoch and math.isclose(state.epoch, epoch, abs_tol=1e-6):
            self._keep(epoch)


def _step_of(record: Mapping[str, Any], steps: int) -> Step:
    """A point from a record of the trainer's history."""
    return Step(
        int(record["step"]),
        steps,
        float(record["loss"]),
        float(record["learning_rate"]),
        float(record.get("grad_norm") or 0.0),
    )
