"""From real runs of the pocket reasoner to rows, as users do it: batch, select, rows."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from start_agent import pocket
from start_agent.batch.store import read_records
from start_agent.data.dataset import need_data, read_rows
from start_agent.data.repairs import repair
from start_agent.models import resolve
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import IGNORE_INDEX, SpanKind, Trace
from tests.support.commands import start_agent

COLUMNS = ["--question-column", "question", "--answer-column", "answer"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training problems that are hard without hints, greedy and hinted; the last one is also held out."""
    folder = tmp_path_factory.mktemp("runs")
    problems = pocket.generate(5, 8, "train", families=["products", "two_step"], levels=[2, 3])
    rows = [json.dumps({"question": problem.question, "answer": problem.answer}) + "\n" for problem in problems]
    (folder / "train.jsonl").write_text("".join(rows))
    (folder / "held.jsonl").write_text(json.dumps({"question": problems[0].question.upper(), "answer": "?"}) + "\n")
    for name, hints in (("alone", "--no-hints"), ("hinted", "--hints")):
        options = ["--data", folder / "train.jsonl", *COLUMNS, "--threads", 1, "--kernels", 2, hints]
        done = start_agent("batch", *options, "--hint-probability", 1, "--output-dir", folder / name)
        assert done.returncode == 0, done.stderr
    return folder


def select(runs: Path, output: Path, *more: object) -> subprocess.CompletedProcess[str]:
    pairs = ["--kind", "hint-rft", "--greedy", runs / "alone", "--runs", runs / "hinted"]
    return start_agent("select", *pairs, "--output-dir", output, *more)


@pytest.fixture(scope="module")
def data(runs: Path) -> Path:
    done = select(runs, runs / "data")
    assert done.returncode == 0, done.stderr
    assert "records read" in done.stdout and "in the loss" in done.stdout
    assert "no --held-out" in done.stderr
    return runs / "data"


def test_rows_are_the_traces_token_for_token(runs: Path, data: Path) -> None:
    alone = {record["problem"]: record["correct"] for record in read_records(runs / "alone")}
    hinted = {record["key"]: record for record in read_records(runs / "hinted")}
    tokenizer = Tokenizer.from_pretrained(resolve("pocket").location)
    rows = list(read_rows(data))
    assert rows
    for row in rows:
        record = hinted[row["key"]]
        assert record["correct"] and not alone[row["problem"]]
        trace = repair(Trace.from_json(record["trace"]), tokenizer)
        assert row["input_ids"] == trace.token_ids
        kinds = trace.kinds()
        assert SpanKind.HINT in kinds and SpanKind.TOOL_OUTPUT in kinds
        for token_id, label, kind in zip(row["input_ids"], row["labels"], kinds, strict=True):
            assert label == (token_id if kind is SpanKind.MODEL else IGNORE_INDEX)
        assert row["labels"][-1] in tokenizer.eos_ids
    report = need_data(data).report
    left_out = report["wrong"] + report["greedy_right"] + sum(report["refused"].values()) + report["not_chosen"]
    assert left_out + report["kept"] == report["records"] == 8


def test_again_is_there_already_and_other_options_are_refused(runs: Path, data: Path) -> None:
    before = (data / "rows.jsonl").stat().st_mtime_ns
    assert "exists already" in select(runs, data).stderr
    assert (data / "rows.jsonl").stat().st_mtime_ns == before
    done = select(runs, data, "--hint", "drop")
    assert done.returncode == 2
    assert '--hint: "mask" there, "drop" now' in done.stderr


def test_extended_runs_are_noticed(runs: Path, tmp_path: Path) -> None:
    extended = tmp_path / "hinted"
    shutil.copytree(runs / "hinted", extended)
    pairs = ["--kind", "rft", "--runs", extended, "--output-dir", tmp_path / "data"]
    assert start_agent("select", *pairs).returncode == 0
    records = extended / "records.jsonl"
    records.write_bytes(b"".join(records.read_bytes().splitlines(keepends=True)[:-1]))
    done = start_agent("select", *pairs)
    assert done.returncode == 2
    assert "another configuration: records of " in done.stderr


def test_held_out_problems_that_have_changed_are_noticed(runs: Path, tmp_path: Path) -> None:
    held = tmp_path / "held.jsonl"
    held.write_text(json.dumps({"question": "How many?", "answer": "2"}) + "\n")
    assert select(runs, tmp_path / "data", "--held-out", held).returncode == 0
    shutil.copyfile(runs / "held.jsonl", held)
    done = select(runs, tmp_path / "data", "--held-out", held)
    assert done.returncode == 2
    assert f"another configuration: problems of --held-out {held}: " in done.stderr


def test_a_held_out_problem_is_not_learned(runs: Path) -> None:
    done = select(runs, runs / "clean", "--held-out", runs / "held.jsonl")
    assert done.returncode == 0, done.stderr
    keys = {row["problem"] for row in read_rows(runs / "data")}
    clean = {row["problem"] for row in read_rows(runs / "clean")}
    planted = json.loads((runs / "held.jsonl").read_text())["question"]
    [removed] = keys - clean
    assert clean < keys
    [question] = [row["question"] for row in read_rows(runs / "data") if row["problem"] == removed]
    assert question.upper() == planted
    assert need_data(runs / "clean").report["refused"] == {"leaked_respelled": 1}


def test_looking_at_rows(data: Path) -> None:
    done = start_agent("rows", "show", "--data", data, "--index", 0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("⟦<|im_start|>user") and "⟧" in done.stdout
    for kind in ("prompt", "model", "hint", "tool_output", "all"):
        assert f"│ {kind} " in done.stdout
    assert "rows, unchanged" in start_agent("rows", "check", "--data", data).stdout
    done = start_agent("rows", "show", "--data", data, "--index", 99)
    assert done.returncode == 2
    assert "use --index 0 to" in done.stderr


def test_exporting(data: Path, tmp_path: Path) -> None:
    done = start_agent("rows", "export", "--data", data, "--output-dir", tmp_path / "trl")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).suffix == ".parquet"  # pre-tokenized, unless another format is asked for
    assert done.stderr == ""
    done = start_agent("rows", "export", "--data", data, "--format", "sharegpt", "--output-dir", tmp_path / "sharegpt")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("note: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["select", "--kind", "rft", "--output-dir", "x"], "--runs"),
        (["select", "--kind", "sft", "--runs", "r", "--output-dir", "x"], "--kind"),
        (["select", "--kind", "hint-rft", "--runs", "r", "--output-dir", "x"], "--greedy"),
        (["select", "--kind", "rft", "--runs", "no-such-run", "--output-dir", "x"], "is not a run directory"),
        (["rows", "show", "--data", "no-such-data"], "is not a data folder"),
        (["rows", "export", "--data", "no-such-data"], "--output-dir"),
        (["rows", "check", "--data", "no-such-data"], "start-agent select"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = start_agent(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("start-agent")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
