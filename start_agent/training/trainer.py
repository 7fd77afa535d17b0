"""TRL's SFTTrainer, adapted for this project: row order, checkpoints, no console output, and speed on a CPU."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
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
)
from transformers.integrations import get_available_reporting_integrations
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled
from trl import SFTConfig, SFTTrainer

from start_agent.errors import ConfigError, ModelError, first_line
from start_agent.fields import pairs_fault
from start_agent.training import checkpoints, saving
from start_agent.training.callbacks import (
    EpochEnds,
    Evaluations,
    Listener,
    LossReport,
    Step,
    curve_of,
    evaluations_of,
)
from start_agent.training.evaluation import Evaluation
from start_agent.training.options import SftOptions
from start_agent.training.sampler import EpochSampler
from start_agent.training.validation import check_batch

_ARGUMENT_OPTIONS = {"lora_r": "lora_rank", "warmup_steps": "warmup_ratio", "use_cpu": "device"}
"""Arguments of TRL that are set by an option of ours with another name."""

_OVERRIDABLE = frozenset({"optim", "dataloader_pin_memory"})  # arguments below that --sft-arg may override


def arguments(options: SftOptions, folder: Path, processes: int) -> SFTConfig:
    """TRL's arguments. Checkpoints go to ``folder``. Raises ConfigError for an invalid ``sft_arg``."""
    own = {
        "output_dir": str(folder),
        "learning_rate": options.learning_rate,
        "num_train_epochs": options.num_train_epochs,
        "max_steps": -1 if options.max_steps is None else options.max_steps,
        "per_device_train_batch_size": options.per_device_train_batch_size,
        "gradient_accumulation_steps": options.batch_size // (options.per_device_train_batch_size * processes),
        "warmup_steps": options.warmup_ratio,
        "lr_scheduler_type": options.lr_scheduler_type,
        "weight_decay": options.weight_decay,
        "adam_beta2": options.adam_beta2,
        "max_grad_norm": options.max_grad_norm,
        "max_length": options.max_length,  # truncates nothing: the rows were checked
        "packing": options.packing,
        "packing_strategy": "bfd",
        "dataset_kwargs": {"skip_prepare_dataset": not options.packing},
        "bf16": options.bf16,
        "gradient_checkpointing": options.gradient_checkpointing,
        "optim": "adamw_torch_fused",
        "seed": options.seed,
        "use_cpu": options.device == "cpu" or not torch.accelerator.is_available(),
        "save_strategy": "steps",
        "save_steps": options.save_steps,
        "logging_steps": options.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # otherwise NaN losses would be replaced by the last finite one
        "disable_tqdm": True,
        "report_to": list(options.report_to),
        "dataloader_pin_memory": options.device != "cpu" and torch.accelerator.is_available(),
    }
    taken = dict.fromkeys(own.keys() - _OVERRIDABLE, "start-agent depends on its value")
    named = {name: name for name in SftOptions.model_fields} | _ARGUMENT_OPTIONS
    taken |= {name: f"use the option --{option.replace('_', '-')}" for name, option in named.items()}
    known = {field.name for field in fields(SFTConfig) if field.init}
    reporters = {"all", "none", *get_available_reporting_integrations()}
    if missing := sorted(set(options.report_to) - reporters):
        raise ConfigError(
            f"--report-to {missing[0]}: not installed, or unknown to transformers; use one of "
            f"{', '.join(sorted(reporters))}"
        )
    if fault := pairs_fault("sft_arg", options.sft_arg, known, taken, "SFTConfig"):
        raise ConfigError(fault)
    return SFTConfig(**{**own, **options.sft_arg})


def process_count() -> int:
    """The number of training processes started by a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


class RowsTrainer(SFTTrainer):  # type: ignore[misc]  # untyped
    """SFTTrainer for rows with labels.

    On a CPU it uses the model's own loss: TRL's, made for vocabularies whose logits do not fit into GPU memory, also
    computes entropies and accuracies, which costs a small model about a tenth of its time.
    """

    def __init__(self, options: SftOptions, **given: Any) -> None:
        self.options = options
        self.base_name = ""
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
        """Nothing: this package writes its own card at the end."""

    def _send_telemetry(self) -> None:
        """Nothing is sent."""

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Do not report tied weights as missing: they are saved once."""
        tied = getattr(self.model, "all_tied_weights_keys", None) or {}
        load_result.missing_keys[:] = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result)

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        options = self.options
        lengths = [0] * len(rows)
        if options.group_by_length:
            lengths = [len(row["input_ids"]) for row in rows.with_format("numpy", columns=["input_ids"])]
        return EpochSampler(lengths, options.seed, options.batch_size, grouped=options.group_by_length)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir)
        with saving.writing(f"the checkpoint of step {self.state.global_step}", folder):
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                checkpoints.mark_complete(folder, self.state.global_step)
                checkpoints.remove_old(folder)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of ``run``. A run that was resumed has several starts.

    Attributes:
        weights: a folder with the new weights, in the base's dtype, or with only the adapters.
        curve: the loss curve over all starts.
        evaluations: evaluations on held-out rows over all starts.
        steps: optimizer steps over all starts.
        parameters: number of trained parameters.
        epochs: passes over the rows in this start.
        seconds: duration of this start.
        processes: number of training processes.
    """

    weights: Path
    curve: list[Step]
    evaluations: list[Evaluation]
    steps: int
    parameters: int
    epochs: float
    seconds: float
    processes: int


def run(
    base: Path,
    rows: Any,
    options: SftOptions,
    output: Path,
    work: Path,
    *,
    name: str = "",
    held_back: Sequence[Mapping[str, Any]] = (),
    listener: Listener | None = None,
) -> Outcome:
    """Train, from the last complete checkpoint if there is one. See ``sft.train``, which has validated the rows."""
    threads, bars = torch.get_num_threads(), (is_progress_bar_enabled(), are_progress_bars_disabled())
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    disable_progress_bar()
    disable_progress_bars()
    try:
        trainer = _trainer(base, rows, options, work)
        trainer.base_name = name or str(base)
        trainer.add_callback(LossReport(trainer, options, listener))
        if held_back:
            trainer.add_callback(Evaluations(trainer, held_back, options.eval_steps, listener))
        if options.keep_epochs:
            trainer.add_callback(EpochEnds(lambda epoch: _keep_epoch(trainer, base, output, work, epoch)))
        return _run(trainer, base, work)
    finally:
        torch.set_num_threads(threads)
        if bars[0]:
            enable_progress_bar()
        if not bars[1]:
            enable_progress_bars()


def _trainer(base: Path, rows: Any, options: SftOptions, work: Path) -> RowsTrainer:
    """Build the trainer, and check its first batch against the rows. Raises ConfigError."""
    processes = process_count()
    at_once = options.per_device_train_batch_size
    if options.batch_size % (at_once * processes):
        raise ConfigError(
            f"--batch-size {options.batch_size} is not a multiple of --per-device-train-batch-size {at_once} "
            f"times {processes} processes"
        )
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no GPU here")
    try:
        settings = arguments(options, work, processes)  # before loading the model, which depends on it with DeepSpeed
    except (TypeError, ValueError) as error:  # unsupported by the machine (bf16), or an invalid --sft-arg
        raise ConfigError(f"the trainer rejects these settings: {first_line(error)}") from error
    if settings.deepspeed_plugin is not None and options.lora_rank is not None:
        raise ConfigError("--lora-rank is not supported with DeepSpeed: train adapters on one GPU")
    trainer = RowsTrainer(
        options,
        model=_load(base, options, deepspeed=settings.deepspeed_plugin is not None),
        args=settings,
        train_dataset=_dataset(rows),
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=_adapters(options),
    )
    first = [trainer.train_dataset[i] for i in range(min(at_once, len(trainer.train_dataset)))]
    check_batch(trainer.data_collator(first), rows)
    return trainer


def _run(trainer: RowsTrainer, base: Path, work: Path) -> Outcome:
    if trainer.is_world_process_zero():
        checkpoints.remove(work, incomplete_only=True)
    last = checkpoints.last_complete(work)
    begin, done = time.monotonic(), 0.0
    if last is not None:
        done = float(json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))["epoch"])
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    seconds = time.monotonic() - begin
    parameters = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)  # before adapters are merged
    history = trainer.state.log_history
    return Outcome(
        weights=_weights(trainer, base, work),
        curve=curve_of(history, trainer.state.max_steps),
        evaluations=evaluations_of(history),
        steps=trainer.state.global_step,
        parameters=parameters,
        epochs=trainer.state.epoch - done,
        seconds=seconds,
        processes=trainer.args.world_size,
    )


def _load(base: Path, options: SftOptions, *, deepspeed: bool) -> Any:
    if options.dtype == "bfloat16" and options.lora_rank is None and not deepspeed:
        raise ConfigError(
            "--dtype bfloat16 would round away small updates of the weights: use float32, --lora-rank, or DeepSpeed, "
            "which keeps a float32 copy"
        )
    try:
        return AutoModelForCausalLM.from_pretrained(
            base, dtype=options.dtype, attn_implementation=options.attn_implementation
        )
    except ImportError as error:
        raise ConfigError(f"--attn-implementation {options.attn_implementation}: {first_line(error)}") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"cannot load the model {str(base)!r}: {first_line(error)}") from error


def _dataset(rows: Any) -> Dataset:
    """A data set with the columns that training reads; a ``Dataset`` is not copied."""
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
    """Save the new weights next to the checkpoints, in the base's dtype, with adapters merged, or only the adapters."""
    folder = work / "weights"
    with saving.writing("the weights", folder):
        if trainer.is_deepspeed_enabled:
            trainer.save_model(str(folder))  # all processes: the shards are gathered
            return folder
        if trainer.is_world_process_zero():
            model = trainer.accelerator.unwrap_model(trainer.model)
            if trainer.options.lora_rank is None:
                model.to(getattr(torch, saving.dtype(base))).save_pretrained(folder)
            elif trainer.options.merge_adapters:
                _save_adapters(model, work / "adapter", trainer.base_name)
                model.merge_and_unload().to(getattr(torch, saving.dtype(base))).save_pretrained(folder)
            else:
                _save_adapters(model, folder, trainer.base_name)
        trainer.accelerator.wait_for_everyone()
    return folder


def _save_adapters(model: Any, folder: Path, base: str) -> None:
    """Save only the adapters, with the name of the base model by which users load it.

    ``save_embedding_layers=False`` because the vocabulary is unchanged; otherwise PEFT would check it on the Hub.
    """
    config = model.peft_config["default"]
    loaded_from, config.base_model_name_or_path = config.base_model_name_or_path, base
    try:
        model.save_pretrained(folder, save_embedding_layers=False)
    finally:
        config.base_model_name_or_path = loaded_from  # the local path, for checkpoints


def _keep_epoch(trainer: RowsTrainer, base: Path, output: Path, work: Path, epoch: int) -> None:
    """Write the model of an epoch: its weights, or only its adapters, because merging them would end training."""
    folder, kept = work / f"epoch-{epoch}", output / f"epoch-{epoch}"
    with saving.writing(f"the model of epoch {epoch}", kept):
        if trainer.is_deepspeed_enabled:
            trainer.save_model(str(folder))
        elif trainer.is_world_process_zero():
            model = trainer.accelerator.unwrap_model(trainer.model)
            if trainer.options.lora_rank is None:
                kind = getattr(torch, saving.dtype(base))
                model.save_pretrained(folder, state_dict={k: v.to(kind) for k, v in model.state_dict().items()})
            else:
                _save_adapters(model, folder, trainer.base_name)
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            kept.mkdir(exist_ok=True)
            saving.install(folder, base, kept)
