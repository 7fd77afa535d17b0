"""Renamed options: old names work on the command line, in YAML and in stored folders."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field

from start_agent import fields
from start_agent.batch.resume import ResumeRules
from start_agent.cli import flags
from start_agent.cli.parser import Parser
from start_agent.decoding.settings import DecodingSettings
from start_agent.engines import registry
from start_agent.engines.vllm import VLLMOptions
from start_agent.errors import ConfigError
from start_agent.fields import Renamed, Runtime
from start_agent.training.options import SftOptions, read_recipe


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    save_steps: Annotated[Runtime[int], Renamed("save_every")] = Field(200, description="steps")
    runs: Annotated[tuple[Path, ...], Renamed("paths")] = Field((), description="paths")
    tools: Annotated[bool, Renamed("code")] = Field(True, description="tools")


@pytest.fixture(autouse=True)
def fresh_warnings() -> Iterator[None]:
    fields._warn_renamed.cache_clear()
    yield
    fields._warn_renamed.cache_clear()


def parsed(*words: str) -> Options:
    parser = Parser()
    flags.add_options(parser, Options, "options")
    return fields.build(Options, vars(parser.parse_args(words)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("--save-every", "7"), ("--save-steps", "7")),
        (("--paths", "a", "b", "--runs", "c"), ("--runs", "a,b", "--runs", "c")),
        (("--no-code",), ("--no-tools",)),
    ],
)
def test_an_old_flag_works_with_one_line_on_stderr(
    old: tuple[str, ...], new: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert parsed(*old) == parsed(*new)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and old[0] in said and new[0].replace("no-", "") in said


def test_an_old_flag_is_in_no_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    said = capsys.readouterr().out
    assert "--save-steps" in said and "--save-every" not in said and "--code" not in said


def test_an_old_key_works_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        fields.refuse_unknown({"save_every": 3}, [Options], "file")
        assert fields.build(Options, {"save_every": 3}, {}).save_steps == 3
    assert [(record.levelno, "save_steps" in record.message) for record in caplog.records] == [(logging.WARNING, True)]
    assert fields.build(Options, {"save_every": 3}, {"save_steps": 4}).save_steps == 4


def test_both_names_at_once_are_an_error() -> None:
    with pytest.raises(ConfigError, match="save_steps"):
        fields.build(Options, {"save_every": 3, "save_steps": 4})


def test_an_old_name_of_another_engine_is_refused_as_the_new_one_is() -> None:
    with pytest.raises(ConfigError, match="--tensor-parallel-size"):
        registry.create("transformers", "m", {"tensor_parallel_size": 2})
    assert registry.ENGINES.find("http").options in registry.ENGINES.option_models().values()
    assert fields.build(VLLMOptions, {"max_batch": 3}).max_num_seqs == 3


def test_what_older_versions_stored_is_read_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert fields.stored(DecodingSettings, {"rounds": 3}).end_of_think_hints == 3
    assert not caplog.records


OLD_TRAINING = {
    "learning_rate": 7e-6, "epochs": 3.0, "max_steps": None, "batch_size": 128, "micro_batch": 1, "warmup_share": 0.03,
    "schedule": "cosine", "weight_decay": 0.0, "beta2": 0.999, "clip": 1.0, "max_length": 16384, "packing": False,
    "group_by_length": False, "attention": "sdpa", "weights": "float32", "bf16": True, "gradient_checkpointing": True,
    "lora_rank": None, "lora_alpha": 32, "lora_dropout": 0.0, "seed": 0, "device": "auto", "merge_adapters": True,
}  # fmt: skip
"""``options`` in a ``training/run.json`` of version 0.1."""


def test_a_training_of_an_older_version_may_resume() -> None:
    rules = ResumeRules.of({"options": SftOptions})
    stored, now = {"options": OLD_TRAINING}, {"options": fields.deciding(SftOptions())}
    assert rules.differences(stored, now) == []
    other = {"options": fields.deciding(SftOptions(per_device_train_batch_size=2, sft_arg={"optim": "adafactor"}))}
    differences = rules.differences(stored, other)
    assert [one.partition(":")[0] for one in differences] == ["--per-device-train-batch-size", "--sft-arg"]


def test_a_recipe_with_old_keys_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 2\nmicro_batch: 4\nweights: bfloat16\nlora_rank: 4\n")
    options = fields.build(SftOptions, read_recipe(str(path)))
    assert (options.num_train_epochs, options.per_device_train_batch_size, options.dtype) == (2, 4, "bfloat16")


def test_a_group_that_an_older_version_did_not_have_is_at_its_defaults() -> None:
    rules = ResumeRules.of({"decoding": DecodingSettings, "new": SftOptions})
    decoding = fields.deciding(DecodingSettings())
    old = {"decoding": {("rounds" if name == "end_of_think_hints" else name): decoding[name] for name in decoding}}
    now = {"decoding": decoding, "new": fields.deciding(SftOptions())}
    assert rules.differences(old, now) == []
    now["new"] = fields.deciding(SftOptions(seed=3))
    assert len(rules.differences(old, now)) == 1
