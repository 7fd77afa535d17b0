"""A plug-in package: installed by pip, used by name and by ``module:object``, on the command line and in Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import start_agent as package
from hints import HintLibrary
from start_agent.batch.store import read_records
from start_agent.decoding.replay import replay
from start_agent.engines.registry import ENGINES
from start_agent.engines.scripted import byte_tokenizer
from start_agent.grading.registry import GRADERS
from start_agent.strategies.registry import STRATEGIES
from start_agent.tasks.definitions import TASKS
from start_agent.tokens.dialects import DIALECTS
from start_agent.trace import SpanKind, Trace
from tests.support.batches import stable
from tests.support.commands import start_agent

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"
HINTED = {"example.connective.1", "example.end_of_think.1"}
BY_NAME = {
    "--engine": "adder",
    "--task": "additions",
    "--grader": "nearly",
    "--strategy": "agree",
    "--dialect": "run-tags",
    "--hint-files": "example",
}
BY_PLACE = {
    "--engine": "start_agent_example:ENGINE",
    "--task": "start_agent_example:TASK",
    "--grader": "start_agent_example:GRADER",
    "--strategy": "start_agent_example:STRATEGY",
    "--dialect": "start_agent_example:DIALECT",
    "--hint-files": "start_agent_example:HINTS",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package in it, as pip installs it."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE, source)  # building leaves files next to the sources
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    words += ["--disable-pip-version-check", "--target", str(target), str(source)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in target.iterdir()} >= {"start_agent_example", "start_agent_example-0.1.0.dist-info"}
    return target


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package can be imported here, and nothing of it is left afterwards."""
    monkeypatch.syspath_prepend(site)
    for registry in (ENGINES, GRADERS, STRATEGIES, TASKS, DIALECTS):
        monkeypatch.setattr(registry, "_known", None)
    yield
    sys.modules.pop("start_agent_example", None)


def words(options: dict[str, Any]) -> list[str]:
    return [str(word) for pair in options.items() for word in pair]


def batch(output_dir: Path, options: dict[str, Any], *more: object) -> subprocess.CompletedProcess[str]:
    return start_agent("batch", *words(options), "--limit", 6, "--kernels", 2, *more, "--output-dir", output_dir)


def check_records(path: Path) -> None:
    """Every part of the package was used, and its traces can be replayed without it."""
    records = list(read_records(path))
    assert len(records) == 6
    for record in records:
        trace = Trace.from_json(record["trace"])
        assert record["question"].startswith("What is ") and record["verdict"]["gold"] == record["gold"]
        assert record["correct"] and record["verdict"]["reason"] == "equal"
        assert len(record["strategy"]["traces"]) == 2 and record["strategy"]["chosen"] == 0
        assert "<run>\nprint(" in trace.text() and "<result>\n" in trace.text(SpanKind.TOOL_OUTPUT)
        assert {span.cause for span in trace.of_kind(SpanKind.HINT)} <= HINTED
        assert trace.tool_calls >= 1 and trace.tool_calls == len(list(trace.of_kind(SpanKind.HINT)))


ENGINE = BY_PLACE["--engine"]


@pytest.mark.parametrize("engine", [("--engine", ENGINE), (f"--engine={ENGINE}",)], ids=["two words", "one word"])
def test_options_of_what_is_named_by_its_place(installed: None, engine: tuple[str, ...], tmp_path: Path) -> None:
    own = ["--slips", "1", "--grader", "start_agent_example:GRADER", "--within", "1"]
    own += ["--strategy", "start_agent_example:STRATEGY", "--tries", "3"]
    registry: Any
    for registry in (ENGINES, GRADERS, STRATEGIES):  # as where the package is not installed, but can be imported
        registry._known = {entry.name: entry for entry in registry._built_in()}
    alone = ["--limit", "2", "--no-hints", "--no-tools", "--output-dir", str(tmp_path / "run")]
    done = start_agent("batch", *engine, "--task", "start_agent_example:TASK", *own, *alone)
    assert done.returncode == 0, done.stderr
    for record in read_records(tmp_path / "run"):
        assert record["correct"] and float(record["answer"]) == float(record["gold"]) + 1
    refused = start_agent("batch", *engine, "--task", "start_agent_example:TASK", "--sleeps", "1", *alone)
    assert refused.returncode == 2 and "did you mean '--slips'" in refused.stderr


@pytest.mark.parametrize("chosen", [BY_NAME, BY_PLACE], ids=["by name", "by place"])
def test_a_run_with_everything_of_the_package(installed: None, chosen: dict[str, Any], tmp_path: Path) -> None:
    done = batch(tmp_path / "run", chosen)
    assert done.returncode == 0, done.stderr
    check_records(tmp_path / "run")
    before = stable(tmp_path / "run")
    again = batch(tmp_path / "run", chosen)
    assert again.returncode == 0 and "nothing is pending" in again.stderr
    for option, other in (("--grader", "math"), ("--strategy", "single"), ("--dialect", "fences")):
        refused = batch(tmp_path / "run", chosen | {option: other})
        assert refused.returncode == 2 and "another configuration" in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert stable(tmp_path / "run") == before


def test_the_installed_command_in_a_process_of_its_own(site: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    command = [sys.executable, "-m", "start_agent", "batch", *words(BY_NAME), "--limit", "6", "--kernels", "2"]
    command += ["--tries", "3", "--within", "0.5", "--output-dir", str(tmp_path / "run")]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check_records(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (config["grader"], config["nearly grader"]) == ({"grader": "nearly"}, {"within": 0.5})
    assert (config["strategy"], config["agree strategy"]) == ({"strategy": "agree"}, {"tries": 3})
    assert "start_agent_example" not in sys.modules
    library = HintLibrary.load(EXAMPLE / "start_agent_example" / "hints.yaml")
    for record in read_records(tmp_path / "run"):  # which needs no package
        replay(Trace.from_json(record["trace"]), byte_tokenizer(), library)


def test_the_tasks_own_grader_and_the_options_of_the_package(installed: None, tmp_path: Path) -> None:
    alone = {"--engine": "adder", "--task": "additions", "--slips": 1}
    wrong = batch(tmp_path / "wrong", alone, "--no-hints", "--no-tools")
    near = batch(tmp_path / "near", alone, "--no-hints", "--no-tools", "--within", 1)
    assert wrong.returncode == near.returncode == 0, wrong.stderr + near.stderr
    assert [record["correct"] for record in read_records(tmp_path / "wrong")] == [False] * 6
    assert [record["correct"] for record in read_records(tmp_path / "near")] == [True] * 6
    helped = start_agent("batch", "--help").stdout
    for head, flag in (("--engine adder", "--slips"), ("--grader nearly", "--within"), ("--strategy agree", "--tries")):
        assert head in helped and flag in helped


def test_one_question(installed: None) -> None:
    done = start_agent(
        *("solve", "What is 20 + 22?", "--engine", "adder", "--strategy", "agree", "--hint-files", "example", "--json")
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["answer"] == "42" and [one["answer"] for one in found["strategy"]["traces"]] == ["42", "42"]
    voted = start_agent(
        *("solve", "What is 20 + 22?", "--engine", "start_agent_example:ENGINE", "--no-hints", "--no-tools"),
        *("--strategy", "majority", "--votes", "3"),
    )
    assert voted.returncode == 0, voted.stderr
    assert "votes: 42 (2)" in voted.stdout and "answer: 42  (traces: 2, tokens: " in voted.stdout


def test_from_python(installed: None, tmp_path: Path) -> None:
    options: dict[str, Any] = {"engine": "adder", "slips": 0.2, "hints": False, "tools": False}
    run = package.evaluate("additions", strategy="majority", votes=9, limit=6, output_dir=tmp_path / "run", **options)
    assert 5 <= run.summary.traces <= 9 and run.accuracy == 1.0
    with package.open(strategy="majority", votes=9, **options) as solver:
        solution = solver.answer("What is 20 + 22?")
        assert solution.answer == solver.solve("What is 20 + 22?").answer == "42"
        assert set(solution.tally) <= {"42", "43"} and sum(solution.tally.values()) == len(solution.traces)
        assert sum(1 for _ in solver.stream("What is 20 + 22?")) > 1


WRONG = ["start_agent_example:NOTHING", "start_agent_example:additions", "no_module:X", "nothing"]


@pytest.mark.parametrize("option", list(BY_NAME))
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_not_there_is_one_line(installed: None, option: str, wrong: str, tmp_path: Path) -> None:
    done = batch(tmp_path / "run", BY_NAME | {option: wrong})
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and wrong.partition(":")[0] in done.stderr
    assert not (tmp_path / "run").exists()
