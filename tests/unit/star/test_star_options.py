"""The options of ``star``: training options that clash with the engine's have other names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from start_agent import fields
from start_agent.cli.main import command_parser
from start_agent.cli.star import RunOptions, _training
from start_agent.training.options import SftOptions

NEEDED = {"output_dir": "x", "model": "pocket", "rationales": "y"}


def training(file: dict[str, Any], *flags: str) -> SftOptions:
    words = ["star", "--output-dir", "x", "--model", "pocket", "--rationales", "y", *flags]
    given = vars(command_parser(words).parse_args(words))
    return _training(fields.build(RunOptions, file, given), file, given)


@pytest.mark.parametrize(
    ("file", "flags"),
    [
        ({}, ("--sft", "lora")),
        ({}, ("--recipe", "lora")),
        ({"sft": "lora"}, ("--dtype", "float32")),
        ({"dtype": "float32"}, ("--recipe", "lora")),
        ({"lora_rank": 32}, ("--train-dtype", "bfloat16", "--dtype", "float32")),
        ({"lora_rank": 32, "weights": "bfloat16"}, ()),
        ({"lora_rank": 32}, ("--weights", "bfloat16", "--dtype", "float16")),
    ],
)
def test_the_type_of_the_weights_is_not_the_engines(file: dict[str, Any], flags: tuple[str, ...]) -> None:
    found = training(file, *flags)
    assert (found.dtype, found.lora_rank) == ("bfloat16", 32)


def test_the_engines_type_is_not_that_of_the_weights() -> None:
    assert training({"dtype": "bfloat16"}).dtype == "float32"


def test_flags_override_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("micro_batch: 2\nsave_every: 5\n")
    found = training({}, "--sft", str(path), "--per-device-train-batch-size", "4")
    assert (found.per_device_train_batch_size, found.save_steps) == (4, 5)
