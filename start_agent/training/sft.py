"""Supervised fine-tuning on rows with labels: validated before the first step, resumable, written atomically.

The output folder::

    config.json, model.safetensors, tokenizer …   the model; config.json is written last, so it marks a complete model
    README.md                                     the model card
    training/run.json                             the full configuration, and the versions
    training/checkpoint-N/                        for resuming a killed run; removed at the end
    training/loss.csv, eval.csv, loss.png         the loss curve, and the evaluations on held-out rows
    epoch-N/                                      the model of each epoch, with --keep-epochs
    training/report.json                          exists once the run is complete; written atomically
    training/lock                                 locked (flock) while a run is in progress
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from start_agent.batch.resume import ResumeRules
from start_agent.errors import DataError, MissingExtraError, RunDirectoryError
from start_agent.fields import deciding
from start_agent.files import LOCK, MODEL_CONFIG, NewFolder, lock_folder, model_digest, write_json
from start_agent.models import local_folder
from start_agent.training import checkpoints, saving
from start_agent.training.loading import numbers
from start_agent.training.loss_curve import write_curve
from start_agent.training.model_card import model_card
from start_agent.training.options import SftOptions
from start_agent.training.validation import RowsFacts, check_rows
from start_agent.versions import versions

if TYPE_CHECKING:
    from start_agent.training.callbacks import Listener

FOLDER = "training"
_RUN, _REPORT, _CARD = "run.json", "report.json", "README.md"


@dataclass(frozen=True, slots=True)
class TrainReport:
    """The result of a run.

    Attributes:
        output: folder of the model.
        rows, tokens, trained_tokens: counts of the data, for one epoch.
        digest: sha256 of the ids and labels of all rows.
        steps: optimizer steps.
        parameters: number of trained parameters.
        first_loss, last_loss: nats per trained token at the first and the last point of the curve.
        seconds, tokens_per_second: since the last start or resume; padding is not counted.
        processes: number of training processes.
        already_done: whether the folder had the finished run already, so that nothing was trained now.
        eval_rows: number of held-out rows; the following are None without any.
        eval_answers: held-out rows with an answer.
        first_eval_loss, last_eval_loss: nats per trained token of held-out rows, before and after training.
        first_eval_right, last_eval_right: held-out rows whose answer the model reproduces, before and after training
            (see ``start_agent.training.evaluation``).
    """

    output: str
    rows: int
    tokens: int
    trained_tokens: int
    digest: str
    steps: int
    parameters: int
    first_loss: float
    last_loss: float
    seconds: float
    tokens_per_second: float
    processes: int
    already_done: bool = False
    eval_rows: int = 0
    eval_answers: int | None = None
    first_eval_loss: float | None = None
    last_eval_loss: float | None = None
    first_eval_right: int | None = None
    last_eval_right: int | None = None


def train(
    model: str,
    rows: Sequence[Mapping[str, Any]],
    options: SftOptions,
    output_dir: Path,
    *,
    eval_rows: Sequence[Mapping[str, Any]] = (),
    source: Mapping[str, str] | None = None,
    begin: Callable[[RowsFacts], None] | None = None,
    listener: Listener | None = None,
) -> TrainReport:
    """Fine-tune a model; resume from the last checkpoint if the folder has one of the same run.

    Args:
        model: a model id of the Hub, a local folder, or ``pocket``.
        rows: mappings with ``input_ids`` and ``labels`` (-100: no loss), a list or a ``datasets.Dataset``.
        options: options of the training.
        output_dir: folder of the model; see the module.
        eval_rows: held-out rows of other problems, evaluated every ``options.eval_steps`` steps.
        source: source of the rows, for the model card.
        begin: called with facts about the rows after they were validated, unless the run is already complete.
        listener: called with each point of the loss curve and each evaluation.

    Raises:
        DataError: rows are malformed, too long, without a trained token, or in both sets.
        RunDirectoryError: the folder has another run, or another model.
        ModelError: the model cannot be loaded.
        TrainingError: the loss is NaN or infinite, or a file cannot be written.
        ConfigError: options contradict each other, or do not work with the model or the machine.
        MissingExtraError: the packages for training are not installed.
    """
    try:
        from start_agent.training import trainer
    except ImportError as error:
        raise MissingExtraError(error.name or "trl", "train") from error
    from start_agent.training.evaluation import refuse_overlap

    options = options.on(trainer.process_count())
    rows, held_back = numbers(rows), numbers(eval_rows)
    base = saving.base_folder(model)
    facts = _validate(base, rows, options)
    eval_facts = _validate(base, held_back, options) if len(held_back) else None
    if eval_facts is not None:
        refuse_overlap(rows, held_back)
    work = output_dir / FOLDER
    with _locked(work):
        run = {
            "base": model,
            "base_digest": model_digest(base),
            "rows": {"count": facts.rows, "digest": facts.digest},
            "options": deciding(options),
        }
        if eval_facts is not None:
            run["eval_rows"] = {"count": eval_facts.rows, "digest": eval_facts.digest}
        with saving.writing("the run's options", work):
            _record_run(work, run)
        if (work / _REPORT).is_file():
            return replace(TrainReport(**json.loads((work / _REPORT).read_bytes())), already_done=True)
        if begin is not None:
            begin(facts)
        name = model if local_folder(model) is None else str(base.absolute())  # an absolute path, for adapters
        outcome = trainer.run(base, rows, options, output_dir, work, name=name, held_back=held_back, listener=listener)
        report = _report(output_dir, facts, len(held_back), outcome)
        if not main_process():
            return report
        with saving.writing("the curve, the card and the model", output_dir):
            write_curve(outcome.curve, outcome.evaluations, work)
            card = model_card(run, report, versions(), source or {})
            (output_dir / _CARD).write_text(card, encoding="utf-8")
            saving.install(outcome.weights, base, output_dir)
            write_json(work / _REPORT, asdict(report))
            checkpoints.remove(work)
        return report


def main_process() -> bool:
    """Whether this process writes files: the first of those started by a launcher, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def _validate(base: Path, rows: Sequence[Mapping[str, Any]], options: SftOptions) -> RowsFacts:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base).get_text_config()
    context = int(config.max_position_embeddings)
    facts = check_rows(rows, max_length=options.max_length, vocabulary=int(config.vocab_size))
    if facts.longest > context:
        raise DataError(f"a row has {facts.longest} tokens, but the model's context is {context}: remove such rows")
    return facts


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Lock the folder, so that no second run writes to it. An error before anything is trained leaves no new file."""
    if not main_process():
        yield
        return
    try:
        folder = NewFolder(work)
        lock = lock_folder(work)
    except OSError as error:
        raise RunDirectoryError(f"cannot write to {work}: {error.strerror}") from error
    try:
        yield
    except BaseException:
        folder.take_back(LOCK, _RUN)
        raise
    finally:
        os.close(lock)


def _record_run(work: Path, run: dict[str, Any]) -> None:
    """Write the configuration of the run, or check that the existing one is the same."""
    if not main_process():
        return
    path = work / _RUN
    if not path.exists():
        taken = [name for name in (MODEL_CONFIG, _CARD) if (work.parent / name).exists()]
        if taken:
            raise RunDirectoryError(
                f"{work.parent} already has a {taken[0]}, which would be overwritten: choose another --output-dir"
            )
        write_json(path, {"run": run, "versions": versions()})
        return
    try:
        there = json.loads(path.read_bytes())["run"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"cannot read {path}: {error}") from error
    different = ResumeRules.of({"options": SftOptions}).differences(there, run)
    if different and not checkpoints.all_checkpoints(work) and not (work / _REPORT).exists():
        write_json(path, {"run": run, "versions": versions()})  # the earlier run has not trained anything
    elif different:
        raise RunDirectoryError(
            f"{work.parent} has a run with another configuration: {'; '.join(different)}. "
            "Choose another --output-dir, or run with the old options"
        )


def _report(output: Path, facts: RowsFacts, eval_rows: int, outcome: Any) -> TrainReport:
    evaluations: dict[str, Any] = {}
    if outcome.evaluations:
        first, last = outcome.evaluations[0], outcome.evaluations[-1]
        evaluations = {
            "eval_rows": eval_rows,
            "eval_answers": last.answers,
            "first_eval_loss": first.loss,
            "last_eval_loss": last.loss,
            "first_eval_right": first.right,
            "last_eval_right": last.right,
        }
    return TrainReport(
        output=str(output),
        rows=facts.rows,
        tokens=facts.tokens,
        trained_tokens=facts.trained,
        digest=facts.digest,
        steps=outcome.steps,
        parameters=outcome.parameters,
        first_loss=outcome.curve[0].loss,
        last_loss=outcome.curve[-1].loss,
        seconds=round(outcome.seconds, 2),
        tokens_per_second=round(facts.tokens * outcome.epochs / outcome.seconds, 1),
        processes=outcome.processes,
        **evaluations,
    )
