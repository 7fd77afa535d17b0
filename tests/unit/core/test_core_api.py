"""The Python API's own faults: arguments of the wrong type, and progress bars that nobody asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import logging

import start_agent
from start_agent.api import AsyncSolver
from start_agent.build import AnswerConfig
from start_agent.decoding.solver import Solver
from start_agent.engines.scripted import ScriptedEngine
from start_agent.errors import ConfigError
from start_agent.models import quiet_loading

BAD: Any = {"none": None, "number": 3, "list": ["What is 1 + 1?"], "bytes": b"What?", "object": object()}


@pytest.mark.parametrize("name", BAD)
def test_a_question_that_is_no_text_is_refused_before_a_model_is_loaded(name: str) -> None:
    for solve in (start_agent.solve, lambda question, **options: asyncio.run(_solved(question, **options))):
        with pytest.raises(TypeError, match="question must be a text"):
            solve(BAD[name], model="no such model")


async def _solved(question: Any, **options: Any) -> object:
    return await start_agent.solve_async(question, **options)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: start_agent.evaluate(BAD["number"]), "task"),
        (lambda: start_agent.evaluate(BAD["list"]), "task"),
        (lambda: start_agent.evaluate("pocket", output_dir=BAD["number"]), "output_dir"),
        (lambda: start_agent.evaluate("pocket", listener=BAD["object"]), "listener"),
    ],
)
def test_a_run_of_the_wrong_types_is_refused(call: Callable[[], object], named: str) -> None:
    with pytest.raises(TypeError, match=f"^{named} must be "):
        call()


@pytest.mark.parametrize("options", [{"model": 3}, {"seed": "one"}, {"temperature": "hot"}, {"hint_files": 3}])
def test_options_of_the_wrong_types_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--"):
        start_agent.open(**options)


async def test_an_open_solver_refuses_the_same() -> None:
    config = AnswerConfig.of(tools=False)
    solver = AsyncSolver(Solver(ScriptedEngine([]), settings=config.solver.decoding), config)
    for call in (solver.solve, solver.answer):
        with pytest.raises(TypeError, match="question must be"):
            await call(BAD["none"])
        with pytest.raises(TypeError, match="seed must be"):
            await call("What is 1 + 1?", seed="one")
    with pytest.raises(TypeError, match="question must be"):
        solver.stream(BAD["number"])


class Terminal:
    def isatty(self) -> bool:
        return True


def test_bars_are_shown_to_who_waits_at_a_terminal_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    logging.enable_progress_bar()
    for model, terminal, shown in (
        ("pocket", True, False),
        ("Qwen/QwQ-32B", True, True),
        ("Qwen/QwQ-32B", False, False),
    ):
        with monkeypatch.context() as patched:
            if terminal:
                patched.setattr("sys.stderr", Terminal())
            with quiet_loading(model):
                assert logging.is_progress_bar_enabled() is shown
        assert logging.is_progress_bar_enabled()


def test_bars_that_the_user_has_hidden_stay_hidden() -> None:
    logging.disable_progress_bar()
    try:
        with quiet_loading("pocket"):
            assert not logging.is_progress_bar_enabled()
        assert not logging.is_progress_bar_enabled()
    finally:
        logging.enable_progress_bar()


def test_no_bar_is_written_while_a_model_loads(capsys: pytest.CaptureFixture[str]) -> None:
    logging.enable_progress_bar()
    with start_agent.open(tools=False):
        pass
    assert capsys.readouterr().err == ""


def test_a_run_that_fails_leaves_no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(start_agent.StartAgentError):
        start_agent.evaluate("pocket", model=str(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []
