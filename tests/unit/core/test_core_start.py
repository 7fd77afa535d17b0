"""The start of a command: its imports, its logging, its exit code."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

import start_agent
from hints import HintError
from sandbox import SandboxError
from start_agent.cli.exit_codes import ExitCode, exit_code_of
from start_agent.cli.logs import logging_to
from start_agent.cli.main import COMMANDS, command_parser, main
from start_agent.errors import ConfigError, EngineError

HEAVY = {
    *("numpy", "torch", "transformers", "vllm", "pydantic", "rich", "yaml", "tokenizers", "sympy", "httpx", "datasets"),
    *("hints.library", "sandbox.sandbox", "start_agent.fields", "start_agent.engines", "start_agent.cli.solving"),
}
"""What no command line needs before a command is chosen."""


@pytest.mark.parametrize(
    "program",
    [
        "import start_agent",
        "import start_agent; assert start_agent.__version__",
        "from start_agent.cli.main import main; main(['--version'])",
        "from start_agent.cli.main import main; main(['--help'])",
        "from start_agent.cli.main import main; main(['slove'])",
    ],
)
def test_no_engine_is_imported_before_a_command_is_chosen(program: str) -> None:
    code = f"import atexit, sys\natexit.register(lambda: print(*sys.modules, file=sys.stderr))\n{program}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    modules = set(done.stderr.splitlines()[-1].split())
    assert "start_agent" in modules and not modules & HEAVY


def test_completion_sees_the_public_names() -> None:
    assert set(start_agent.__all__) <= set(dir(start_agent))


def test_a_command_imports_no_other() -> None:
    code = (
        "import sys\nfrom start_agent.cli.main import command_parser\ncommand_parser(['compare'])\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = {name for name in done.stdout.split() if name.startswith("start_agent.cli.")}
    assert "start_agent.cli.compare" in ours
    assert not ours & {f"start_agent.cli.{module}" for module, _ in COMMANDS.values() if module != "compare"}


@pytest.mark.parametrize("word", ["--ver", "--hel"])
def test_flags_are_not_abbreviated(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([word])
    assert ended.value.code == ExitCode.INPUT_ERROR
    with pytest.raises(SystemExit):
        command_parser(["solve"]).parse_args(["solve", "--temp", "1", "q"])
    assert "--temp" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (HintError("x"), 2),
        (EngineError("x"), 1),
        (SandboxError("x"), 1),
        (ZeroDivisionError(), None),
    ],
)
def test_an_exit_code_says_whose_fault_it_was(error: Exception, code: int | None) -> None:
    assert exit_code_of(error) == code


def test_the_exit_codes_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(f"{code.value}  {code.about}" in said for code in ExitCode)


def messages(folder: Path, *words: str) -> str:
    """What reaches the file of messages: one of each level, from this package and from a library."""
    options = command_parser(["compare"]).parse_args(["compare", "run", "--log-file", str(folder / "log"), *words])
    with logging_to(options):
        for name in ("start_agent.x", "library.x"):
            for level in (logging.DEBUG, logging.INFO, logging.WARNING):
                logging.getLogger(name).log(level, "said")
    return (folder / "log").read_text()


@pytest.mark.parametrize(
    ("words", "ours", "theirs"),
    [
        ((), 1, 1),
        (("-v",), 2, 1),
        (("-vv",), 3, 1),
        (("--verbose", "--verbose", "--verbose"), 3, 1),
        (("--log-level", "info"), 2, 2),
        (("--log-level", "error"), 0, 0),
        (("--log-level", "error", "-v"), 2, 0),
    ],
)
def test_how_much_is_said(
    words: tuple[str, ...], ours: int, theirs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    said = messages(tmp_path, *words)
    assert (said.count("start_agent.x: said"), said.count("library.x: said")) == (ours, theirs)
    assert capsys.readouterr().err.count("said") == ours + theirs
    assert (logging.getLogger().handlers, logging.getLogger().level) == before


def test_a_log_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "run", "--log-file", str(tmp_path)]) == ExitCode.INPUT_ERROR
    assert "--log-file" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_flags(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == ExitCode.COMPLETE
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    assert all(flag in script for flag in ("--hint-probability", "--log-level", "--tensor-parallel-size"))
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
