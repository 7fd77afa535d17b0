from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from start_agent.cli import batch, hint_rft, select, sft
from start_agent.errors import ConfigError, InputError
from start_agent.fields import command_words
from start_agent.papers.reproduce import PARTS, ReproduceOptions, reproduce_stages
from start_agent.recipes.hint_rft import Parts, check_inputs, recipe_names, stages_of
from start_agent.recipes.stages import Stage
from start_agent.recipes.steps import find_step


def parts(**given: Any) -> Parts:
    return Parts.from_layers(given.pop("recipe", "pocket"), {"output_dir": Path("out"), **given})


def by_name(stages: list[Stage]) -> dict[str, Stage]:
    return {stage.name: stage for stage in stages}


def option(stage: Stage, flag: str) -> list[str]:
    """The values of a flag in a stage's command."""
    words = command(stage)
    return [words[place + 1] for place, word in enumerate(words) if word == flag]


def command(stage: Stage) -> list[str]:
    """The words of a stage's command that decide what comes out."""
    return [*find_step(stage.step).command, *command_words(stage.options)]


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A folder that looks like a model's."""
    (tmp_path / "config.json").write_text("{}")
    return str(tmp_path)


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(exit_on_error=False)
    commands = parser.add_subparsers(required=True)
    for command in (batch, select, sft, hint_rft):
        command.add(commands)
    return parser


def test_the_stages_need_what_the_method_says() -> None:
    stages = by_name(stages_of(parts(samples=4, sampling_runs=2)))
    assert {name: stage.after for name, stage in stages.items()} == {
        "greedy": (),
        "hinted": (),
        "seed-data": ("hinted", "greedy"),
        "start-0": ("seed-data",),
        "sampled-1": ("start-0",),
        "sampled-2": ("start-0",),
        "start-data": ("sampled-1", "sampled-2"),
        "start": ("start-data",),
    }
    assert "--no-hints" in command(stages["greedy"]) and "--no-hints" not in command(stages["hinted"])
    for name in ("start-0", "start"):  # both from the base
        assert option(stages[name], "--model") == ["pocket"]
    for number in (1, 2):
        sampled = stages[f"sampled-{number}"]
        assert option(sampled, "--model") == ["out/start-0"]
        assert option(sampled, "--samples") == ["2"] and option(sampled, "--seed") == [str(number)]
        assert option(sampled, "--temperature") == ["0.6"] and "--no-hints" in command(sampled)
    for name in ("seed-data", "start-data"):
        assert option(stages[name], "--held-out") == ["pocket"]


def test_start_may_be_sampled_in_its_turn() -> None:
    once = stages_of(parts(samples=4, sampling_runs=2))
    twice = stages_of(parts(samples=4, sampling_runs=2, sampling_rounds=2))
    assert twice[: len(once)] == once
    more = by_name(twice[len(once) :])
    assert {name: stage.after for name, stage in more.items()} == {
        "sampled-2-1": ("start",),
        "sampled-2-2": ("start",),
        "start-data-2": ("sampled-2-1", "sampled-2-2"),
        "start-2": ("start-data-2",),
    }
    assert [option(more[f"sampled-2-{number}"], "--seed") for number in (1, 2)] == [["3"], ["4"]]
    assert option(more["sampled-2-1"], "--model") == ["out/start"]
    assert option(more["start-2"], "--model") == ["pocket"]
    assert option(more["start-data-2"], "--runs") == ["out/sampled-2-1", "out/sampled-2-2"]


def test_flags_override_the_recipe(model: str) -> None:
    stages = by_name(stages_of(parts(limit=10, model=model, instruction="Go.", max_num_seqs=7)))
    assert option(stages["greedy"], "--limit") == ["10"]
    assert option(stages["greedy"], "--model") == [model]
    assert option(stages["sampled-1"], "--instruction") == ["Go."]
    assert "--max-num-seqs" not in command(stages["greedy"])  # it decides nothing, so it may change
    assert stages["greedy"].runtime["max_num_seqs"] == 7


def test_other_engines(model: str) -> None:
    stages = by_name(stages_of(parts(recipe="start-32b", model=model, instruction="", data="a.jsonl")))
    assert option(stages["hinted"], "--engine") == ["vllm"]
    assert option(stages["start"], "--config") == ["start-32b"]
    with pytest.raises(ConfigError, match="--block-size is an option of --engine vllm"):
        parts(block_size=16)


def test_a_launcher_starts_the_trainings_alone() -> None:
    stages = by_name(stages_of(parts(launcher="accelerate launch --config_file 'my file.yaml'")))
    assert stages["start"].arguments(Path("o.json"))[:4] == ["accelerate", "launch", "--config_file", "my file.yaml"]
    assert stages["greedy"].launcher == ()


@pytest.mark.parametrize("recipe", recipe_names())
def test_the_commands_of_each_recipe_are_commands(recipe: str, parser: argparse.ArgumentParser) -> None:
    for stage in stages_of(parts(recipe=recipe, model="pocket")):
        parser.parse_args([*command(stage), *command_words(stage.runtime)])


@pytest.mark.parametrize("quick", [False, True])
def test_the_reproduction(quick: bool, parser: argparse.ArgumentParser) -> None:
    options = ReproduceOptions(output_dir=Path("out"), quick=quick)
    stages = reproduce_stages(parts(), options)
    known: set[str] = set()
    for stage in stages:
        assert set(stage.after) <= known
        known.add(stage.name)
        if stage.name != "star":
            parser.parse_args([*command(stage), *command_words(stage.runtime)])
        if stage.name.startswith("eval-"):  # never on what is learned from
            assert option(stage, "--task") == ["pocket"] and option(stage, "--split") == []
        elif stage.step == "batch":
            assert option(stage, "--split") == ["train"]
        if stage.step == "select":
            assert option(stage, "--held-out") == ["pocket"]
    assert len(known) == len(stages)


def test_no_more_is_evaluated_than_is_held_out() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 500"):
        ReproduceOptions(output_dir=Path("out"), held_out_limit=501)


def test_parts_alone() -> None:
    names = {
        part: set(by_name(reproduce_stages(parts(), ReproduceOptions(output_dir=Path("out"), parts=(part,)))))
        for part in PARTS
    }
    assert names["star"] == {"star"}
    assert "eval-base-rounds-4" in names["rounds"] and "eval-base-rounds-4" not in names["table"]
    assert "start-0-drop" in names["ablation"] and names["table"] < names["ablation"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"recipe": "none"}, "no recipe 'none'; use pocket, start-32b"),
        ({"samples": 5, "sampling_runs": 2}, "cannot be split evenly"),
        ({"sft": "none"}, "no recipe 'none'"),
        ({"samples": 0}, "--samples: input should be greater"),
        ({"max_length": 4096}, "the recipe pocket-seed accepts at most 1024 tokens"),
        ({"launcher": "accelerate 'launch"}, "--launcher: no closing quotation"),
    ],
)
def test_refusals(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        stages_of(parts(**given))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"task": "none"}, "no task 'none'"),
        ({"task": "gsm8k", "data": "./nowhere.jsonl"}, "there is no file or folder './nowhere.jsonl'"),
        ({"held_out": ("./nowhere.jsonl",)}, "there is no file or folder './nowhere.jsonl'"),
    ],
)
def test_what_cannot_be_read_is_said_before_anything_is_run(given: dict[str, Any], complaint: str) -> None:
    check_inputs(parts(limit=1))
    with pytest.raises(InputError, match=complaint):
        check_inputs(parts(**given))


def test_a_training_whose_settings_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("batch_size: 32\nmicro_batch: 3\n")
    with pytest.raises(ConfigError, match=r"^batch_size 32 is not a multiple of per_device_train_batch_size 3"):
        stages_of(parts(sft=str(path)))


def test_an_instruction_that_looks_like_a_flag(model: str, parser: argparse.ArgumentParser) -> None:
    stages = by_name(stages_of(parts(model=model, instruction="-v")))
    assert parser.parse_args(command(stages["greedy"])).instruction == "-v"


def test_a_recipe_with_an_unknown_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("task: pocket\nsample: 3\n")
    with pytest.raises(ConfigError, match="unknown option 'sample'"):
        parts(recipe=str(path))
