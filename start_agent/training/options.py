"""The settings of a fine-tuning, and the recipes: YAML files of them that ship with the package."""

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
_LAUNCHER = "accelerate-"  # for `accelerate launch`, not for us


class SftOptions(BaseModel):
    """How a model is fine-tuned. The defaults are the paper's where it says them; ``recipes/`` has whole sets.

    ``trainer.arguments`` hands them on to TRL.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(7e-6, gt=0, description="peak learning rate")
    num_train_epochs: Annotated[float, Renamed("epochs")] = Field(3.0, gt=0, description="passes over the rows")
    max_steps: int | None = Field(None, ge=1, description="optimizer steps, in place of --num-train-epochs")
    batch_size: int = Field(
        128, ge=1, description="sequences in an optimizer step, over all processes; packed ones with --packing"
    )
    per_device_train_batch_size: Annotated[int, Renamed("micro_batch")] = Field(
        1, ge=1, description="sequences at once in one process; the rest of a step is accumulated, one after another"
    )
    gradient_accumulation_steps: int | None = Field(
        None, ge=1, description="passes that a step accumulates, in place of --batch-size (default: what that needs)"
    )
    warmup_ratio: Annotated[float, Renamed("warmup_share")] = Field(
        0.03, ge=0, lt=1, description="share of the steps in which the rate rises from 0"
    )
    lr_scheduler_type: Annotated[Literal["cosine", "linear", "constant_with_warmup"], Renamed("schedule")] = Field(
        "cosine", description="the rate after the warm-up"
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    adam_beta2: Annotated[float, Renamed("beta2")] = Field(
        0.999, ge=0, lt=1, description="AdamW's decay of the second moment"
    )
    max_grad_norm: Annotated[float, Renamed("clip")] = Field(1.0, gt=0, description="largest norm of the gradient")
    max_length: int = Field(16384, ge=2, description="tokens in a sequence; a longer row is an error, never cut")
    packing: bool = Field(
        False, description="several rows in a sequence of --max-length, none cut, none seeing another (best fit first)"
    )
    group_by_length: bool = Field(False, description="rows of like length in a step, so that little is padding")
    attn_implementation: Annotated[
        Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"], Renamed("attention")
    ] = Field("sdpa", description="how attention is computed; packing wants flash attention")
    dtype: Annotated[Literal["float32", "bfloat16"], Renamed("weights")] = Field(
        "float32", description="of the weights while they train; bfloat16 for LoRA and under DeepSpeed"
    )
    bf16: bool = Field(True, description="matrix products in bfloat16, the rest in float32")
    gradient_checkpointing: bool = Field(True, description="compute activations twice rather than keep them")
    lora_rank: int | None = Field(None, ge=1, description="train adapters of this rank, not the weights themselves")
    lora_alpha: int = Field(32, ge=1, description="LoRA's scale; what is added is scaled by alpha / rank")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="LoRA's dropout")
    seed: int = Field(0, ge=0, description="decides the order of the rows, and the adapters' first weights")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    threads: Runtime[int | None] = Field(None, ge=1, description="CPU threads of torch; unset, torch's own choice")
    merge_adapters: bool = Field(
        True, description="merge the adapters into the model; else the output holds them alone, for PEFT and vLLM"
    )
    keep_epochs: Runtime[bool] = Field(False, description="keep the model of each epoch, in epoch-1, epoch-2 ...")
    eval_steps: Runtime[int] = Field(
        200, ge=1, description="steps between evaluations on --eval-data; also before the first and after the last"
    )
    save_steps: Annotated[Runtime[int], Renamed("save_every")] = Field(
        200, ge=1, description="steps between checkpoints, from which a run goes on"
    )
    logging_steps: Annotated[Runtime[int], Renamed("log_every")] = Field(
        1, ge=1, description="steps between points of the loss curve"
    )
    report_to: Runtime[tuple[str, ...]] = Field(
        (), description="where the trainer reports to besides: wandb, tensorboard, trackio ..., or all"
    )
    sft_arg: Pairs = Field({}, description="argument of TRL's SFTConfig that has no option here: optim=adafactor")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        sequences, at_once = self.batch_size, self.per_device_train_batch_size
        if self.gradient_accumulation_steps is None and sequences % at_once:
            raise ValueError(f"batch_size {sequences} is no multiple of per_device_train_batch_size {at_once}")
        if not self.merge_adapters and self.lora_rank is None:
            raise ValueError("merge_adapters: there are none without lora_rank")
        if self.packing and self.group_by_length:
            raise ValueError("packing and group_by_length exclude each other: packed sequences are of one length")
        return self

    def on(self, processes: int) -> Self:
        """The same, with ``batch_size`` as it comes out for so many processes side by side."""
        passes = self.gradient_accumulation_steps
        if passes is None:
            return self
        sequences = self.per_device_train_batch_size * passes * processes
        return self.model_copy(update={"batch_size": sequences, "gradient_accumulation_steps": None})


def recipe_names() -> list[str]:
    """The recipes that ship with the package: what ``--config`` takes beside a path."""
    names = [entry.name for entry in _RECIPES.iterdir() if not entry.name.startswith(_LAUNCHER)]
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def read_recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe, by its name or by the path of a YAML file of one's own.

    Raises:
        ConfigError: there is no such recipe, or it has a key that no option has.
    """
    path = Path(name)
    if name in recipe_names():
        with resources.as_file(_RECIPES / f"{name}{_SUFFIX}") as packaged:
            values = fields.read_yaml(packaged)
    elif path.suffix in {_SUFFIX, ".yml"}:
        values = fields.read_yaml(path)
    else:
        raise ConfigError(f"--config: no recipe {name!r}; there are {', '.join(recipe_names())}, or a YAML file's path")
    fields.refuse_unknown(values, [SftOptions], name)
    return fields.with_new_names(SftOptions, values)


class TrainOptions(BaseModel):
    """What is trained, on what, to where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        "pocket", description="the base: a model of the hub, a local folder, or the embedded 'pocket' or 'pocket-start'"
    )
    data: Path = Field(description="rows: a data folder, a JSONL file, or a folder that datasets saved")
    eval_data: Path | None = Field(
        None, description="rows of other problems, held back: their loss and answers are shown as training goes on"
    )
    output_dir: Path = Field(description="the new model's folder: new, or that of the same run")
    config: Annotated[str | None, Renamed("recipe")] = Field(
        None, description=f"a set of settings: {', '.join(recipe_names())}, or a YAML file of them; flags override it"
    )
