"""``start-agent batch`` and ``compare`` as users run them, on the pocket reasoner."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from start_agent.batch.store import RECORDS
from start_agent.models import resolve
from tests.support.batches import stable
from tests.support.commands import start_agent
from tests.support.waiting import wait_until

COMMAND = [sys.executable, "-m", "start_agent"]
POCKET = ["--task", "pocket_sums", "--threads", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs over the same six problems, one of them hinted."""
    folder = tmp_path_factory.mktemp("runs")
    for name, hints in (("alone", "--no-hints"), ("hinted", "--hints")):
        done = start_agent("batch", *POCKET, "--limit", 6, "--kernels", 2, hints, "--output-dir", folder / name)
        assert done.returncode == 0, done.stderr
        assert "6 problems" in done.stdout and "with a tool call" in done.stdout
    return folder


def test_the_run_directory(runs: Path) -> None:
    records = stable(runs / "hinted")
    assert len(records) == 6
    assert all(record["counts"]["tool_calls"] for record in records.values())
    summary = json.loads((runs / "hinted" / "summary.json").read_text())
    assert (summary["problems"], summary["owed"], list(summary["groups"])) == (6, 0, ["level", "subject"])
    config = json.loads((runs / "hinted" / "config.json").read_text())
    assert config["config"]["decoding"]["hints"] is True
    assert "start-agent" in config["versions"]


def test_again_nothing_is_pending_also_with_other_runtime_options(runs: Path) -> None:
    before = (runs / "hinted" / RECORDS).read_bytes()
    done = start_agent("batch", *POCKET, "--limit", 6, "--kernels", 1, "--output-dir", runs / "hinted")
    assert done.returncode == 0
    assert "nothing is pending" in done.stderr
    assert (runs / "hinted" / RECORDS).read_bytes() == before


def test_other_options_are_refused_in_one_line(runs: Path) -> None:
    done = start_agent("batch", *POCKET, "--limit", 6, "--end-of-think-hints", 2, "--output-dir", runs / "hinted")
    assert done.returncode == 2
    assert "--end-of-think-hints: 1 there, 2 now" in done.stderr
    assert done.stderr.count("\n") == 1


def test_another_model_under_the_same_path_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(resolve("pocket").location, model)
    options = [*POCKET, "--limit", 1, "--no-tools", "--no-hints", "--model", model, "--output-dir", tmp_path / "run"]
    assert start_agent("batch", *options).returncode == 0
    shutil.copyfile(Path(resolve("pocket-start").location) / "model.safetensors", model / "model.safetensors")
    done = start_agent("batch", *options)
    assert done.returncode == 2
    assert f"another configuration: content of {model}: " in done.stderr


def test_another_chat_template_is_refused_and_the_day_stays_that_of_the_first_start(tmp_path: Path) -> None:
    model, run = tmp_path / "model", tmp_path / "run"
    shutil.copytree(resolve("pocket").location, model)
    own = json.loads((model / "tokenizer_config.json").read_text())["chat_template"]

    def template(text: str) -> str:
        (model / "chat_template.jinja").write_text(text)
        return text

    template(own + "{# {{ strftime_now('%Y') }} #}{% if false %}{{ strftime_now('%Y') }}{% endif %}")
    options = [*POCKET, "--no-tools", "--no-hints", "--model", model, "--output-dir", run]
    assert start_agent("batch", *options, "--limit", 1).returncode == 0
    config = json.loads((run / "config.json").read_text())
    config["prompt"]["day"] = "2020-02-02"  # as if it had started then
    (run / "config.json").write_text(json.dumps(config))
    assert start_agent("batch", *options, "--limit", 2).returncode == 0
    records = [json.loads(line) for line in (run / RECORDS).read_text().splitlines()]
    assert records[1]["trace"]["meta"]["chat"] == {"chat_template_date": "2020-02-02"}
    template(own + "{# strftime_now #}.")
    done = start_agent("batch", *options, "--limit", 3)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "prompt sha256" in done.stderr and "chat template" in done.stderr


def test_another_data_set_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    row = {"question": "What is 1 + 1?", "answer": "2"}
    (tmp_path / "data" / "some.jsonl").write_text(json.dumps(row) + "\n")
    columns = ["--question-column", "question", "--answer-column", "answer", "--threads", 1]
    options = [*columns, "--data", tmp_path / "data", "--no-tools", "--no-hints", "--output-dir", tmp_path / "run"]
    assert start_agent("batch", *options).returncode == 0
    (tmp_path / "data" / "more.jsonl").write_text(json.dumps(row | {"question": "What is 1 * 2?"}) + "\n")
    done = start_agent("batch", *options)
    assert done.returncode == 2
    assert f"another configuration: content of {tmp_path / 'data' / 'more.jsonl'}: unset there" in done.stderr


def test_options_from_a_file(runs: Path, tmp_path: Path) -> None:
    options = tmp_path / "options.yaml"
    options.write_text(f"task: pocket_sums\nlimit: 6\nthreads: 1\nkernels: 3\noutput_dir: {runs / 'hinted'}\n")
    done = start_agent("batch", "--config", options)
    assert done.returncode == 0, done.stderr
    assert "nothing is pending" in done.stderr


def test_comparing(runs: Path) -> None:
    done = start_agent("compare", "--list", runs / "alone", runs / "hinted")
    assert done.returncode == 0, done.stderr
    assert "6 problems in common" in done.stdout and "McNemar" in done.stdout
    assert done.stdout.count("correct only in") == 2
    found = json.loads(start_agent("compare", "--json", runs / "alone", runs / "hinted").stdout)
    assert found["problems"] == 6
    assert found["sides"][1]["tool_rate"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["batch"], "output-dir"),
        (["batch", "--output-dir", "x"], "use --task"),
        (["batch", "--task", "none", "--output-dir", "x"], "no task 'none'"),
        (["batch", "--task", "pocket", "--samples", "0", "--output-dir", "x"], "--samples"),
        (["batch", "--task", "pocket", "--model", ".", "--output-dir", "x"], "a folder without a config.json"),
        (["compare", "no-such-folder", "nor-this"], "is not a run directory"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = start_agent(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_resumes(tmp_path: Path, sign: signal.Signals, code: int) -> None:
    command = ["batch", *POCKET, "--limit", 16, "--concurrency", 4, "--kernels", 2, "--output-dir", tmp_path / "r"]
    records = tmp_path / "r" / RECORDS
    with subprocess.Popen([*COMMAND, *map(str, command)], stderr=subprocess.PIPE, text=True, env=os.environ) as run:
        wait_until(lambda: records.exists() and records.stat().st_size > 0, run.pid)
        run.send_signal(sign)
        assert run.stderr is not None
        said = run.stderr.read()
    assert run.returncode == code, said
    assert "run the same command to resume" in said
    kept = len(stable(tmp_path / "r"))
    assert 1 <= kept < 16
    done = start_agent(*command)
    assert done.returncode == 0, done.stderr
    assert len(stable(tmp_path / "r")) == 16
