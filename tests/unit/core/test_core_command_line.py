"""Errors of the command line: one line, the right exit code, no traceback. No model is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from start_agent.cli.main import main

COMMAND = [sys.executable, "-m", "start_agent"]


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command says of bad input: one line."""
    try:
        code = main(arguments)
    except SystemExit as ended:  # argparse's way
        code = int(ended.code or 0)
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert said.err.count("\n") == 1 and said.err.startswith("start-agent")
    return said.err


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("solve", "--modle", "x", "q"), "--model"),
        (("solve", "q", "--temprature=1"), "--temperature"),
        (("batch", "--output-dir", "x", "--smaples", "3"), "--samples"),
        (("rows", "show", "--data", "folder", "--indx", "3"), "--index"),
        (("pocket", "problems", "--problmes", "3"), "--problems"),
    ],
)
def test_an_unknown_option_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], meant: str
) -> None:
    said = complaint(capsys, *arguments)
    assert f"did you mean '{meant}'" in said
    assert "q" not in said.split()  # what follows it is not unknown


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("bacth", "--task", "pocket"), "batch"),
        (("pocket", "buidl"), "build"),
        (("rows", "exprot"), "export"),
        (("--versoin",), "--version"),
        (("sft", "--lr-scheduler-type", "cosin"), "cosine"),
        (("completion", "bsh"), "bash"),
        (("solve", "--domain", "maht", "q"), "math"),
        (("solve", "--engine", "trasformers", "q"), "transformers"),
    ],
)
def test_an_unknown_command_or_value_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], meant: str
) -> None:
    assert f"did you mean '{meant}'" in complaint(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "COMMAND"),
        (("slove", "q"), "slove"),
        (("solve", "What", "is", "3?"), "quotes"),
        (("solve", "--xyzzy", "q"), "--xyzzy"),
        (("solve", "--json", "--quiet", "q"), "--quiet"),
        (("compare",), "DIR"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], named: str
) -> None:
    assert named in complaint(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("solve", "--file", "absent.txt"), "absent.txt"),
        (("solve", "--file", "."), "directory"),
        (("solve", "--file", "latin.txt"), "UTF-8"),
        (("solve", "bad \udcff byte"), "UTF-8"),
        (("solve", "--chat-template", "absent.jinja", "q"), "absent.jinja"),
        (("solve", "--chat-template", "latin.txt", "q"), "UTF-8"),
        (("solve", "--chat-template-kwargs", "[1]", "q"), "JSON object"),
        (("solve", "--chat-template-kwargs", "{bad", "q"), "JSON object"),
        (("solve", "--think-markers", "absent.yaml", "q"), "absent.yaml"),
        (("solve", "--think-markers", "empty.yaml", "q"), "list of families"),
        (("solve", "--think-markers", "twice.yaml", "q"), "line 2"),
        (("solve", "--config", "torn.yaml", "q"), "sequence in line 2"),
        (("solve", "--config", "latin.txt", "q"), "UTF-8"),
        (("batch", "--task", "pocket", "--split", "absent", "--output-dir", "run"), "held-out"),
        (("batch", "--task", "gsm8k", "--data", "absent.jsonl", "--output-dir", "run"), "absent.jsonl"),
        (("rows", "show", "--data", "latin.txt"), "folder"),
    ],
)
def test_bad_input_is_found_before_a_model_is_loaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("start_agent.engines.transformers.engine.TransformersEngine._load", None)
    Path("latin.txt").write_bytes(b"caf\xe9 \xff")
    Path("empty.yaml").touch()
    Path("twice.yaml").write_text("- name: mine\n  name: yours\n")
    Path("torn.yaml").write_text("rounds: 2\nwords: [Wait\n")
    assert named in complaint(capsys, *arguments)


def start_agent(
    *arguments: str, shell: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command with its streams redirected by a shell."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {shell}', "bash", *COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | (environment or {}),
    )


def test_no_standard_input_is_no_question() -> None:
    done = start_agent("solve", "--quiet", shell="<&-")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_full_disk_behind_the_output_is_one_line(buffered: str) -> None:
    environment = {"PYTHONUNBUFFERED": buffered}
    done = start_agent("pocket", "problems", "--problems", "3", shell="> /dev/full", environment=environment)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "No space left on device" in done.stderr


def test_what_the_output_cannot_spell_is_written_as_a_number() -> None:
    done = start_agent("solve", "--help", shell="", environment={"PYTHONIOENCODING": "ascii", "COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    done = start_agent("batch", "--task", "∑", "--output-dir", "x", shell="", environment={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
