"""TRL's SFTTrainer, with what this project needs otherwise: order, checkpoints, quiet, and speed on a CPU."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
)
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled
from trl import SFTConfig, SFTTrainer

from start_agent.errors import ConfigError, ModelError, TrainingError
from start_agent.tokenizer import first_line
from start_agent.training import checkpoints, saving
from start_agent.training.guards import check_batch, check_packing
from start_agent.training.options import SftOptions
from start_agent.training.order import Order


@dataclass(frozen=True, slots=True)
class Step:
    """A point of the loss curve, as the listener hears it.

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


Listener = Callable[[Step], None]


def arguments(options: SftOptions, folder: Path, processes: int) -> SFTConfig:
    """The trainer's own settings. ``folder`` takes the checkpoints."""
    return SFTConfig(
        output_dir=str(folder),
        learning_rate=options.learning_rate,
        num_train_epochs=options.epochs,
        max_steps=-1 if options.max_steps is None else options.max_steps,
        per_device_train_batch_size=options.micro_batch,
        gradient_accumulation_steps=options.batch_size // (options.micro_batch * processes),
        warmup_steps=options.warmup_share,
        lr_scheduler_type=options.schedule,
        weight_decay=options.weight_decay,
        adam_beta2=options.beta2,
        max_grad_norm=options.clip,
        max_length=options.max_length,  # nothing is longer: the guards have seen to it
        packing=options.packing,
        packing_strategy="bfd",
        dataset_kwargs={"skip_prepare_dataset": not options.packing},
        bf16=options.bf16,
        gradient_checkpointing=options.gradient_checkpointing,
        optim="adamw_torch_fused",
        seed=options.seed,
        use_cpu=options.device == "cpu" or not torch.accelerator.is_available(),
        save_strategy="steps",
        save_steps=options.save_every,
        save_total_limit=2,  # the one before is whole, should the last be torn
        logging_steps=options.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # else a loss that is no number any more would be shown as the last good one
        disable_tqdm=True,
        report_to=[],
        dataloader_pin_memory=options.device != "cpu" and torch.accelerator.is_available(),
    )


class RowsTrainer(SFTTrainer):  # type: ignore[misc]  # untyped
    """SFTTrainer over rows with labels.

    On a CPU the loss is the model's own: TRL's head, made for vocabularies whose logits do not fit a GPU, computes
    entropies and accuracies beside it and costs a small model about a tenth of its time.
    """

    def __init__(self, options: SftOptions, **given: Any) -> None:
        self.options = options
        super().__init__(**given)
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """See ``Trainer.compute_loss``."""
        if self.args.device.type == "cpu":
            return Trainer.compute_loss(self, model, inputs, return_outputs, num_items_in_batch)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def create_model_card(self, *given: Any, **named: Any) -> None:
        """None of TRL's: this package writes its own, once, at the end."""

    def _send_telemetry(self) -> None:
        """None is sent."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Order:
        rows = self.train_dataset if train_dataset is None else train_dataset
        options = self.options
        lengths = [0] * len(rows)
        if options.group_by_length:
            lengths = [len(row["input_ids"]) for row in rows.with_format("numpy", columns=["input_ids"])]
        return Order(lengths, options.seed, options.batch_size, grouped=options.group_by_length)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            checkpoints.mark_whole(Path(self.args.output_dir), self.state.global_step)


class Watch(TrainerCallback):  # type: ignore[misc]  # untyped
    """Tells a listener of each point of the loss curve; stops a run that would learn something wrong."""

    def __init__(self, trainer: RowsTrainer, listener: Listener | None) -> None:
        self._trainer, self._listener = trainer, listener

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """What the trainer calls when the model is as it will train. Raises ConfigError."""
        if self._trainer.options.packing:
            check_packing(self._trainer.model, self._trainer.data_collator)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """What the trainer calls: the last step is always a point."""
        control.should_log |= state.global_step >= state.max_steps

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """What the trainer calls. Raises TrainingError."""
        if not logs or "loss" not in logs:
            return
        step = step_of({**logs, "step": state.global_step}, state.max_steps)
        if not (math.isfinite(step.loss) and math.isfinite(step.gradient_norm)):
            raise TrainingError(
                f"at step {step.step} the loss is {step.loss}, the gradient's norm {step.gradient_norm}: "
                "look at the rows, or lower --learning-rate"
            )
        if self._listener is not None and state.is_world_process_zero:
            self._listener(step)


def step_of(record: Mapping[str, Any], steps: int) -> Step:
    """A point from a record of the trainer's history."""
    return Step(
        int(record["step"]),
        steps,
        float(record["loss"]),
        float(record["learning_rate"]),
        float(record.get("grad_norm") or 0.0),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What ``run`` leaves.

    Attributes:
        weights: a folder with the new weights, in the base's type.
        curve: of the loss, of all starts.
        steps: optimizer steps, of all starts.
        parameters: that were trained.
        epochs: passes over the rows in this start.
        seconds: of this start.
        processes: side by side.
    """

    weights: Path
    curve: list[Step]
    steps: int
    parameters: int
    epochs: float
    seconds: float
    processes: int


def run(base: Path, rows: Any, options: SftOptions, work: Path, listener: Listener | None) -> Outcome:
    """Train, from the last whole checkpoint where there is one. See ``sft.train``, which has looked at the rows."""
    threads, bars = torch.get_num_threads(), (is_progress_bar_enabled(), are_progress_bars_disabled())
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    disable_progress_bar()
    disable_progress_bars()
    try:
        return _run(base, rows, options, work, listener)
    finally:
        torch.set_num_threads(threads)
        if bars[0]:
            enable_progress_bar()
        if not bars[1]:
            enable_progress_bars()


def _run(base: Path, rows: Any, options: SftOptions, work: Path, listener: Listener | None) -> Outcome:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if options.batch_size % (options.micro_batch * processes):
        raise ConfigError(
            f"--batch-size {options.batch_size} is no multiple of --micro-batch {options.micro_batch} "
            f"times {processes} processes"
        )
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no GPU here")
    try:
        settings = arguments(options, work, processes)  # before the model: with DeepSpeed it says how that is loaded
    except ValueError as error:
        raise ConfigError(f"this machine does not do what is asked for: {first_line(error)}") from error
    if settings.deepspeed_plugin is not None and options.lora_rank is not None:
        raise ConfigError("--lora-rank under DeepSpeed is not supported: adapters are for one GPU")
    trainer = RowsTrainer(
        options,
        model=_load(base, options, deepspeed=settings.deepspeed_plugin is not None),
        args=settings,
        train_dataset=_dataset(rows),
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=_adapters(options),
    )
    trainer.add_callback(Watch(trainer, listener))
    first = [trainer.train_dataset[i] for i in range(min(options.micro_batch, len(trainer.train_dataset)))]
    check_batch(trainer.data_collator(first), rows)
    if trainer.is_world_process_zero():
        checkpoints.remove(work, torn_only=True)
    last = checkpoints.last_whole(work)
    begin, done = time.monotonic(), 0.0
    if last is not None:
        done = float(json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))["epoch"])
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    seconds = time.monotonic() - begin
    parameters = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)  # before adapters are merged
    return Outcome(
        weights=_weights(trainer, base, work),
        curve=[step_of(record, trainer.state.max_steps) for record in trainer.state.log_history if "loss" in record],
        steps=trainer.state.global_step,
        parameters=parameters,
        epochs=trainer.state.epoch - done,
        seconds=seconds,
        processes=processes,
    )


def _load(base: Path, options: SftOptions, *, deepspeed: bool) -> Any:
    if options.weights == "bfloat16" and options.lora_rank is None and not deepspeed:
        raise ConfigError(
            "--weights bfloat16 rounds small updates of the weights away: use float32, --lora-rank, or DeepSpeed, "
            "which keeps a float32 copy of its own"
        )
    try:
        return AutoModelForCausalLM.from_pretrained(base, dtype=options.weights, attn_implementation=options.attention)
    except ImportError as error:
        raise ConfigError(f"--attention {options.attention}: {first_line(error)}") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"cannot load the model {str(base)!r}: {first_line(error)}") from error


def _dataset(rows: Any) -> Dataset:
    """The columns that training reads; no copy of a ``Dataset``."""
    columns = ["input_ids", "labels"]
    if isinstance(rows, Dataset):
        return rows.select_columns(columns)
    return Dataset.from_dict({name: [row[name] for row in rows] for name in columns})


def _adapters(options: SftOptions) -> LoraConfig | None:
    if options.lora_rank is None:
        return None
    return LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _weights(trainer: RowsTrainer, base: Path, work: Path) -> Path:
    """Save the new weights beside the checkpoints, adapters merged into them, in the type of the base's."""
    folder = work / "weights"
    if trainer.is_deepspeed_enabled:
        trainer.save_model(str(folder))  # all processes: the shards are gathered
        return folder
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        if trainer.options.lora_rank is not None:
            model.save_pretrained(work / "adapter")
            model = model.merge_and_unload()
        model.to(getattr(torch, saving.dtype(base))).save_pretrained(folder)
    trainer.accelerator.wait_for_everyone()
    return folder
