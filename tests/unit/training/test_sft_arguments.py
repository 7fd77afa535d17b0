"""Options passed to TRL, and TRL's arguments that can be set in addition."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("trl")

from start_agent.errors import ConfigError
from start_agent.training.options import SftOptions
from start_agent.training.trainer import arguments


def test_further_arguments_reach_the_trainer(tmp_path: Path) -> None:
    options = SftOptions(device="cpu", bf16=False, sft_arg={"optim": "adafactor", "neftune_noise_alpha": 5})
    found = arguments(options, tmp_path, processes=1)
    assert (str(found.optim.value), found.neftune_noise_alpha) == ("adafactor", 5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("optmi", "'optim'"),
        ("learning_rate", "--learning-rate"),
        ("warmup_steps", "--warmup-ratio"),
        ("output_dir", "depends"),
        ("gradient_accumulation_steps", "--gradient-accumulation-steps"),
    ],
)
def test_an_argument_that_is_not_known_or_has_an_option(tmp_path: Path, name: str, said: str) -> None:
    options = SftOptions(device="cpu", bf16=False, sft_arg={name: 1})
    with pytest.raises(ConfigError, match=rf"^--sft-arg {name}") as refused:
        arguments(options, tmp_path, processes=1)
    assert said in str(refused.value)


def test_reports_go_where_they_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = SftOptions(device="cpu", bf16=False)
    assert arguments(options, tmp_path, processes=1).report_to == []
    there = "start_agent.training.trainer.get_available_reporting_integrations"
    monkeypatch.setattr(there, lambda: ["tensorboard", "wandb"])
    sent = SftOptions(device="cpu", bf16=False, report_to=("wandb", "tensorboard"))
    assert arguments(sent, tmp_path, processes=1).report_to == ["wandb", "tensorboard"]
    monkeypatch.setattr(there, lambda: ["tensorboard"])
    with pytest.raises(ConfigError, match=r"^--report-to wandb"):
        arguments(sent, tmp_path, processes=1)
