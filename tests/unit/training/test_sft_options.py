"""The settings and the built-in recipes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from start_agent.errors import ConfigError
from start_agent.fields import runtime_names
from start_agent.training.options import SftOptions, read_recipe, recipe_names


def test_every_option_says_what_it_is() -> None:
    assert all(field.description for field in SftOptions.model_fields.values())
    runtime = {"threads", "save_steps", "logging_steps", "keep_epochs", "eval_steps", "report_to"}
    assert runtime_names(SftOptions) == runtime


def test_the_recipes_are_known_by_name_and_are_whole() -> None:
    assert recipe_names() == ["lora", "pocket", "pocket-seed", "start-32b"]
    for name in recipe_names():
        SftOptions(**read_recipe(name))


def test_the_32b_recipe_is_the_papers() -> None:
    options = SftOptions(**read_recipe("start-32b"))
    assert (options.learning_rate, options.batch_size, options.num_train_epochs) == (7e-6, 128, 3)
    assert (options.lr_scheduler_type, options.warmup_ratio, options.max_length) == ("cosine", 0.03, 16384)
    assert options.packing and options.lora_rank is None


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("learning-rate: 0.001\nepochs: 1\n")
    assert SftOptions(**read_recipe(str(path))).learning_rate == 0.001
    path.write_text("learning_speed: 1\n")
    with pytest.raises(ConfigError, match="unknown option 'learning_speed'"):
        read_recipe(str(path))
    with pytest.raises(ConfigError, match="use lora, pocket, pocket-seed, start-32b"):
        read_recipe("start-33b")


@pytest.mark.parametrize(
    "bad",
    [
        {"batch_size": 32, "per_device_train_batch_size": 3},
        {"packing": True, "group_by_length": True},
        {"learning_rate": 0},
        {"warmup_ratio": 1.0},
        {"speed": 1},
    ],
)
def test_settings_that_do_not_fit_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        SftOptions.model_validate(bad)


def test_the_zero3_configuration_is_as_accelerate_reads_it() -> None:
    pytest.importorskip("accelerate")
    from accelerate.commands.config.config_args import ClusterConfig

    path = Path(__file__).parents[3] / "start_agent/training/recipes/accelerate-zero3.yaml"
    config = ClusterConfig.from_yaml_file(str(path))  # refuses keys that it does not know
    assert (config.distributed_type, config.num_processes, config.num_machines) == ("DEEPSPEED", 32, 4)
    assert config.mixed_precision == "bf16"
    assert config.deepspeed_config["zero_stage"] == 3
    assert yaml.safe_load(path.read_text())["deepspeed_config"]["zero3_save_16bit_model"] is True


def test_accumulation_decides_the_size_of_a_step() -> None:
    options = SftOptions(per_device_train_batch_size=2, gradient_accumulation_steps=3)
    assert options.on(4).batch_size == 24
    assert options.on(4).gradient_accumulation_steps is None  # so that another number of processes is another run
    assert SftOptions(batch_size=32).on(4) == SftOptions(batch_size=32)
