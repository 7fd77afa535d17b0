"""The options of fine-tuning, and the recipes: YAML files with options that ship with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from start_agent import fields
from start_agent.errors import ConfigError
from start_agent.fields import Pairs, Renamed, Runtime

_RECIPES = resources.files("start_agent.training") / "recipes"
_SUFFIX = ".yaml"
_LAUNCHER = "accelerate-"  # prefix of configurations for `accelerate launch`


class SftOptions(BaseModel):
    """The options of fine-tuning. The defaults are those of the paper where it states them; see also ``recipes/``.

    ``trainer.arguments`` passes them to TRL.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(7e-6, gt=0, description="peak learning rate")
    num_train_epochs: Annotated[float, Renamed("epochs")] = Field(3.0, gt=0, description="passes over the rows")
    max_steps: int | None = Field(None, ge=1, description="optimizer steps, overrides --num-train-epochs")
    batch_size: int = Field(
        128, ge=1, description="sequences per optimizer step, over all processes; with --packing, packed sequences"
    )
    per_device_train_batch_size: Annotated[int, Renamed("micro_batch")] = Field(
        1, ge=1, description="sequences per forward pass and process; gradients are accumulated up to --batch-size"
    )
    gradient_accumulation_steps: int | None = Field(
        None, ge=1, description="forward passes per optimizer step, overrides --batch-size (default: derived from it)"
    )
    warmup_ratio: Annotated[float, Renamed("warmup_share")] = Field(
        0.03, ge=0, lt=1, description="share of the steps with linear warm-up of the learning rate"
    )
    lr_scheduler_type: Annotated[Literal["cosine", "linear", "constant_with_warmup"], Renamed("schedule")] = Field(
        "cosine", description="learning rate schedule after the warm-up"
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    adam_beta2: Annotated[float, Renamed("beta2")] = Field(
        0.999, ge=0, lt=1, description="AdamW's decay of the second moment"
    )
    max_grad_norm: Annotated[float, Renamed("clip")] = Field(1.0, gt=0, description="gradient clipping: maximum norm")
    max_length: int = Field(16384, ge=2, description="tokens per sequence; longer rows are an error, never truncated")
    packing: bool = Field(
        False, description="pack rows into sequences of --max-length, never split, with separate attention (best fit)"
    )
    group_by_length: bool = Field(False, description="rows of similar length per step, to reduce padding")
    attn_implementation: Annotated[
        Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"], Renamed("attention")
    ] = Field("sdpa", description="attention implementation; packing needs flash attention")
    dtype: Annotated[Literal["float32", "bfloat16"], Renamed("weights")] = Field(
        "float32", description="dtype of the weights during training; bfloat16 for LoRA and DeepSpeed only"
    )
    bf16: bool = Field(True, description="bfloat16 mixed precision")
    gradient_checkpointing: bool = Field(True, description="recompute activations to save memory")
    lora_rank: int | None = Field(None, ge=1, description="train LoRA adapters of this rank instead of all weights")
    lora_alpha: int = Field(32, ge=1, description="LoRA's alpha; updates are scaled by alpha / rank")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="LoRA's dropout")
    seed: int = Field(0, ge=0, description="seed of the order of rows and of the adapters' initial weights")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="device to train on")
    threads: Runtime[int | None] = Field(None, ge=1, description="CPU threads of torch (default: torch's)")
    merge_adapters: bool = Field(
        True, description="merge the adapters into the model; otherwise save only adapters, for PEFT and vLLM"
    )
    keep_epochs: Runtime[bool] = Field(False, description="keep the model of each epoch, in epoch-1, epoch-2 ...")
    eval_steps: Runtime[int] = Field(
        200, ge=1, description="steps between evaluations on --eval-data; also before the first and after the last"
    )
    save_steps: Annotated[Runtime[int], Renamed("save_every")] = Field(
        200, ge=1, description="steps between checkpoints, from which a run can be resumed"
    )
    logging_steps: Annotated[Runtime[int], Renamed("log_every")] = Field(
        1, ge=1, description="steps between points of the loss curve"
    )
    report_to: Runtime[tuple[str, ...]] = Field(
        (), description="trackers that the trainer reports to: wandb, tensorboard, trackio ..., or all"
    )
    sft_arg: Pairs = Field({}, description="argument of TRL's SFTConfig without an option here: optim=adafactor")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        sequences, at_once = self.batch_size, self.per_device_train_batch_size
        if self.gradient_accumulation_steps is None and sequences % at_once:
            raise ValueError(f"batch_size {sequences} is not a multiple of per_device_train_batch_size {at_once}")
        if not self.merge_adapters and self.lora_rank is None:
            raise ValueError("merge_adapters needs lora_rank: there are no adapters without it")
        if self.packing and self.group_by_length:
            raise ValueError("packing and group_by_length exclude each other: packed sequences have equal lengths")
        return self

    def on(self, processes: int) -> Self:
        """The same options, with ``batch_size`` derived from the accumulation steps and the number of processes."""
        passes = self.gradient_accumulation_steps
        if passes is None:
            return self
        sequences = self.per_device_train_batch_size * passes * processes
        return self.model_copy(update={"batch_size": sequences, "gradient_accumulation_steps": None})


def recipe_names() -> list[str]:
    """The names of the recipes that ship with the package, for ``--config``."""
    names = [entry.name for entry in _RECIPES.iterdir() if not entry.name.startswith(_LAUNCHER)]
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def read_recipe(name: str) -> dict[str, Any]:
    """The options of a recipe, given by its name or by the path of a YAML file.

    Raises:
        ConfigError: there is no such recipe, or it has an unknown key.
    """
    path = Path(name)
    if name in recipe_names():
        with resources.as_file(_RECIPES / f"{name}{_SUFFIX}") as packaged:
            values = fields.read_yaml(packaged)
    elif path.suffix in {_SUFFIX, ".yml"}:
        values = fields.read_yaml(path)
    else:
        raise ConfigError(f"--config: no recipe {name!r}; use {', '.join(recipe_names())}, or a path to a YAML file")
    fields.refuse_unknown(values, [SftOptions], name)
    return fields.with_new_names(SftOptions, values)


class TrainOptions(BaseModel):
    """The base model, the data and the output folder of a training run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        "pocket", description="base model: a model of the Hub, a local folder, or 'pocket' or 'pocket-start'"
    )
    data: Path = Field(description="rows: a data folder, a JSONL file, or a folder saved by datasets")
    eval_data: Path | None = Field(
        None, description="held-out rows of other problems, for evaluation during training: loss and answers"
    )
    output_dir: Path = Field(description="folder of the new model: a new folder, or that of the same run")
    config: Annotated[str | None, Renamed("recipe")] = Field(
        None, description=f"a recipe: {', '.join(recipe_names())}, or a YAML file of options; flags override it"
    )
