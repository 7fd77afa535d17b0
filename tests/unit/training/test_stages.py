"""Stages with a test's own program instead of start-agent, which does what its arguments say."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from start_agent.errors import FolderInUseError, RunDirectoryError, StageError
from start_agent.recipes.stages import Stage, StageStates, run_stages
from tests.support.processes import descendants, living
from tests.support.steps import NAME
from tests.support.waiting import eventually, wait_for_exits, wait_until

PROGRAM = """
import json, os, pathlib, sys, time
options = json.loads(pathlib.Path(sys.argv[-1]).read_bytes())
what, folder, names = options["what"], pathlib.Path(options["folder"]), options["names"]
with (folder / "order").open("a") as file:
    file.write(what + "\\n")
match names:
    case ["fail", words]:
        print("a step before"); sys.exit("start-agent: " + words)
    case ["stay"]:
        (folder / f"{what}-stays").touch()
        time.sleep(600)
    case ["threads"]:
        print(os.environ.get("OMP_NUM_THREADS"))
    case ["meet", other]:  # until the other one is there too
        (folder / f"{what}-here").touch()
        while not (folder / f"{other}-here").exists():
            time.sleep(0.005)
print("said by " + what)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


class Recipe:
    """Stages whose launcher is the program."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.launcher, self.folder = (sys.executable, str(program)), folder
        folder.mkdir()

    def stage(self, name: str, *words: str, after: tuple[str, ...] = ()) -> Stage:
        options = {"what": name, "folder": str(self.folder), "names": list(words)}
        return Stage(name, NAME, options, after, launcher=self.launcher)

    @property
    def order(self) -> list[str]:
        return (self.folder / "order").read_text().split()


@pytest.fixture
def recipe(program: Path, tmp_path: Path) -> Recipe:
    return Recipe(program, tmp_path / "recipe")


async def test_each_after_what_it_needs(recipe: Recipe) -> None:
    stages = [
        recipe.stage("a"),
        recipe.stage("b", after=("a",)),
        recipe.stage("c", after=("a", "b")),
        recipe.stage("d", after=("c",)),
    ]
    states = await run_stages(stages, recipe.folder, workers=4)
    assert recipe.order == ["a", "b", "c", "d"]
    assert {one.status for one in states.stages.values()} == {"done"}
    assert states.last_line("c") == "said by c"
    assert "$ " in (recipe.folder / "logs" / "c.log").read_text()


async def test_side_by_side_as_far_as_there_are_workers(recipe: Recipe) -> None:
    await run_stages([recipe.stage("a", "meet", "b"), recipe.stage("b", "meet", "a")], recipe.folder, workers=2)
    assert sorted(recipe.order) == ["a", "b"]


@pytest.mark.parametrize(
    ("cores", "workers", "own", "launched", "threads"),
    [
        (8, 2, None, False, "4"),
        (2, 4, None, False, "1"),
        (8, 2, "3", False, "3"),
        (8, 1, None, False, None),  # alone: whatever the command itself takes
        (8, 2, None, True, None),
    ],
)
async def test_those_side_by_side_share_the_cores(
    recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    workers: int,
    own: str | None,
    launched: bool,
    threads: str | None,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if own is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", own)
    monkeypatch.setattr(os, "sched_getaffinity", lambda number: set(range(cores)))
    stage = recipe.stage("a", "threads")
    if not launched:
        monkeypatch.setattr(Stage, "arguments", lambda self, file: [*recipe.launcher, str(file)])
        stage = replace(stage, launcher=())
    await run_stages([stage], recipe.folder, workers=workers)
    assert (recipe.folder / "logs" / "a.log").read_text().splitlines()[1] == str(threads)


async def test_one_worker_does_one_at_a_time(recipe: Recipe) -> None:
    most = 0

    def on_progress(states: StageStates) -> None:
        nonlocal most
        most = max(most, sum(one.status == "running" for one in states.stages.values()))

    await run_stages([recipe.stage(name) for name in "abc"], recipe.folder, listener=on_progress)
    assert most == 1


async def test_what_is_done_is_not_done_again(recipe: Recipe) -> None:
    first = [recipe.stage("a"), recipe.stage("b", "fail", "no disk", after=("a",))]
    with pytest.raises(StageError, match=r"'b' failed \(exit code 1\): no disk\. Its log is .*b\.log"):
        await run_stages(first, recipe.folder)
    states = await run_stages([recipe.stage("a"), recipe.stage("b", after=("a",))], recipe.folder)
    assert recipe.order == ["a", "b", "b"]
    assert states.stages["a"].earlier and not states.stages["b"].earlier


async def test_other_options_are_refused(recipe: Recipe) -> None:
    await run_stages([recipe.stage("a")], recipe.folder)
    with pytest.raises(RunDirectoryError, match=r"'a' was done with other options"):
        await run_stages([recipe.stage("a", "meet", "a")], recipe.folder)


async def test_how_it_is_done_may_change(recipe: Recipe) -> None:
    stage = recipe.stage("a")
    await run_stages([stage], recipe.folder)
    other = replace(stage, runtime={"threads": 3})
    assert (await run_stages([other], recipe.folder)).stages["a"].earlier


async def test_a_failure_stops_the_others(recipe: Recipe) -> None:
    before = descendants()
    stages = [recipe.stage("a", "stay"), recipe.stage("b", "fail", "no luck")]
    with pytest.raises(StageError, match="no luck"):
        await run_stages(stages, recipe.folder, workers=2)
    assert descendants().keys() == before.keys()
    assert not (recipe.folder / "stages" / "a.json").exists()


async def test_cancelling_stops_them(recipe: Recipe) -> None:
    before = descendants()
    task = asyncio.create_task(run_stages([recipe.stage("a", "stay")], recipe.folder))
    await eventually((recipe.folder / "a-stays").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert descendants().keys() == before.keys()


async def test_one_recipe_at_a_time(recipe: Recipe) -> None:
    task = asyncio.create_task(run_stages([recipe.stage("a", "stay")], recipe.folder))
    await eventually((recipe.folder / "a-stays").exists)
    with pytest.raises(FolderInUseError):
        await run_stages([recipe.stage("a", "stay")], recipe.folder)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("stages", "complaint"),
    [
        ([Stage("b", NAME, {}, after=("a",)), Stage("a", NAME, {})], "depends on a"),
        ([Stage("a", NAME, {}), Stage("a", NAME, {})], "two stages"),
    ],
)
async def test_stages_that_make_no_recipe(stages: list[Stage], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=complaint):
        await run_stages(stages, tmp_path)


async def test_a_mark_that_cannot_be_read(recipe: Recipe) -> None:
    await run_stages([recipe.stage("a")], recipe.folder)
    (recipe.folder / "stages" / "a.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"cannot read .*a\.json: .* remove it to run the stage again"):
        await run_stages([recipe.stage("a")], recipe.folder)


async def test_a_folder_that_cannot_be_written(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match=r"cannot write to .*file"):
        await run_stages([recipe.stage("a")], tmp_path / "file")


def test_commands_die_with_a_killed_recipe(recipe: Recipe) -> None:
    stage = recipe.stage("a", "stay")
    script = (
        "import asyncio, json, sys, pathlib; from start_agent.recipes.stages import Stage, run_stages\n"
        "name, step, options, launcher, folder = json.loads(sys.argv[1])\n"
        "asyncio.run(run_stages([Stage(name, step, options, launcher=tuple(launcher))], pathlib.Path(folder)))"
    )
    values = json.dumps([stage.name, stage.step, stage.options, stage.launcher, str(recipe.folder)])
    with subprocess.Popen([sys.executable, "-c", script, values]) as host:
        assert wait_until((recipe.folder / "a-stays").exists, host.pid)
        commands = descendants(host.pid)
        assert commands
        os.kill(host.pid, signal.SIGKILL)
    wait_for_exits(lambda: living(commands))  # at their own pace


def test_a_stage_is_shown_as_it_is_typed() -> None:
    stage = Stage("a", "batch", {"model": "my model", "hints": False}, runtime={"threads": 1})
    assert stage.shown == "start-agent batch --model 'my model' --no-hints --threads 1"
    launched = Stage("b", "sft", {"data": "d"}, launcher=("accelerate", "launch"))
    assert launched.shown == "accelerate launch -m start_agent sft --data d"
    assert launched.arguments(Path("o.json")) == [*launched.launcher, "-m", "start_agent", "step", "sft", "o.json"]


def test_a_mark_is_of_the_same_stage_however_its_options_are_written() -> None:
    options = {"output_dir": "out", "task": "pocket", "hints": False, "temperature": 0.0, "samples": 1}
    stage = Stage("a", "batch", options)
    assert stage.same_as({"step": "batch", "options": {**options, "rounds": 1}})  # its default
    assert not stage.same_as({"step": "batch", "options": {**options, "rounds": 2}})
    assert not stage.same_as({"step": "select", "options": options})
    words = ["batch", "--output-dir", "out", "--task", "pocket", "--no-hints", "--temperature=0"]
    assert stage.same_as({"command": words})  # as 0.1 wrote it
    assert not stage.same_as({"command": [*words, "--seed", "1"]})
    assert not stage.same_as({"command": ["select", *words[1:]]})
    with pytest.raises(KeyError):
        stage.same_as({})


@pytest.mark.parametrize(
    ("words", "sampling", "same"),
    [
        ([], {"temperature": 0.0}, True),  # it was greedy by default
        (["--temperature", "0.0", "--top-p", "0.9"], {"temperature": 0.0}, True),
        (["--temperature", "0.6"], {"temperature": 0.6, "top_p": 1.0, "top_k": 0, "min_p": 0.0}, True),
        (["--temperature", "0.6"], {"temperature": 0.6, "top_p": 0.9, "top_k": 0, "min_p": 0.0}, False),
        ([], {}, False),  # the model's own
        (["--temperature", "warm"], {"temperature": 0.0}, False),
    ],
)
def test_a_mark_of_0_1_left_out_what_was_the_default_then(
    words: list[str], sampling: dict[str, float], same: bool
) -> None:
    stage = Stage("a", "batch", {"output_dir": "out", "task": "pocket", "end_of_think_hints": 2, **sampling})
    command = ["batch", "--output-dir", "out", "--task", "pocket", "--rounds", "2", *words]
    assert stage.same_as({"command": command}) is same


@pytest.mark.parametrize(
    ("words", "repair", "same"),
    [
        ([], True, True),
        ([], False, True),  # what is selected already is not selected again for a default that has changed
        (["--no-repair"], False, True),
        (["--no-repair"], True, False),
        (["--repair"], False, False),
    ],
)
def test_a_mark_of_0_1_repaired_unasked(words: list[str], repair: bool, same: bool) -> None:
    stage = Stage("a", "select", {"kind": "rft", "runs": ["r"], "output_dir": "out", "repair": repair})
    command = ["select", "--kind", "rft", "--runs", "r", "--output-dir", "out", *words]
    assert stage.same_as({"command": command}) is same
