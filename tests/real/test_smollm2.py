"""A real public model through everything: prompts, both engines, a llama.cpp server, batch, rows, LoRA.

``make test-real`` runs these tests; nothing here is skipped where something is missing. What a model of 135 million
parameters says is its own: the tests look at what is done with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from start_agent.batch.store import read_records
from start_agent.decoding.replay import replay
from start_agent.models import BOXED_INSTRUCTION
from start_agent.tokens.prompts import ChatFormat
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import SpanKind, Trace
from tests.real.smollm2 import FOLDER, GGUF
from tests.support.ports import free_port
from tests.support.servers import STARTS, llama_server

ROOT = Path(__file__).parents[2]
HOME = Path(os.environ.get("START_AGENT_REAL", ROOT / ".real"))
MODEL, FILE = HOME / FOLDER, HOME / GGUF
PROBLEMS = Path(__file__).with_name("problems.jsonl")
SHORT = ("--max-tokens", "64", "--context-length", "512", "--temperature", "0")
QUESTION = "What is the sum of 2 and 3?"

pytestmark = pytest.mark.timeout(STARTS + 300)


def run(*arguments: object, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    """Run a command of start-agent that must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "start_agent", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def batch(output: Path, *arguments: object, model: object = MODEL) -> list[dict[str, Any]]:
    """The records of a batch over the ten problems; its traces replay."""
    columns = ("--question-column", "question", "--answer-column", "answer")
    run("batch", "--model", model, "--data", PROBLEMS, *columns, *SHORT, "--output-dir", output, *arguments)
    records = list(read_records(output))
    assert len(records) == 10
    tokenizer = Tokenizer.from_pretrained(str(model))
    for record in records:
        replay(Trace.from_json(record["trace"]), tokenizer)
    return records


def ids(records: list[dict[str, Any]]) -> dict[str, list[int]]:
    """The tokens of each trace, by its problem."""
    return {record["problem"]: Trace.from_json(record["trace"]).token_ids for record in records}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    path = tmp_path_factory.mktemp("runs") / "alone"
    return path, batch(path, "--no-hints")


@pytest.fixture(scope="module")
def hinted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """It seldom says "Wait": the hint takes the place of the end of its answer."""
    path = tmp_path_factory.mktemp("runs") / "hinted"
    return path, batch(path, "--hint-probability", "1", "--end-of-think-hints", "1")


@pytest.mark.parametrize("model", [MODEL, FILE], ids=["folder", "gguf"])
def test_prompts_are_those_of_transformers(model: Path) -> None:
    from transformers import AutoTokenizer

    place = {"gguf_file": model.name} if model is FILE else {}
    theirs = AutoTokenizer.from_pretrained(model.parent if model is FILE else model, **place)
    ours = Tokenizer.from_pretrained(str(model))
    form = ChatFormat(ours)
    for system in ("", "Be brief."):
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": f"{QUESTION}\n\n{BOXED_INSTRUCTION}"})
        rendered = theirs.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)
        wanted = list(rendered["input_ids"] if hasattr(rendered, "keys") else rendered)
        assert list(form.prompt(QUESTION, system=system, instruction=BOXED_INSTRUCTION).token_ids) == wanted
    assert ours.backend.token_to_id("<|im_end|>") in ours.eos_ids


@pytest.mark.parametrize("model", [MODEL, FILE], ids=["folder", "gguf"])
def test_solving(model: Path) -> None:
    trace = Trace.from_json(json.loads(run("solve", "--json", "--model", model, *SHORT, QUESTION).stdout))
    said = [span for span in trace.spans if span.kind is SpanKind.MODEL]
    assert sum(len(span.token_ids) for span in said) > 5
    replay(trace, Tokenizer.from_pretrained(str(model)))


def test_hints_are_put_in(alone: tuple[Path, list[dict[str, Any]]], hinted: tuple[Path, list[dict[str, Any]]]) -> None:
    assert sum(record["counts"]["hints"] for record in alone[1]) == 0
    assert sum(record["counts"]["hints"] for record in hinted[1]) >= 1


def test_both_engines_say_the_same(alone: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    """Greedy in float32: but for places where two logits are nearly equal."""
    there = ids(batch(tmp_path / "vllm", "--no-hints", "--engine", "vllm", "--dtype", "float32"))
    here = ids(alone[1])
    assert sum(here[key] == there[key] for key in here) >= 8


def test_vllm_with_hints(tmp_path: Path) -> None:
    records = batch(tmp_path / "vllm", "--hint-probability", "1", "--end-of-think-hints", "1", "--engine", "vllm")
    assert sum(record["counts"]["hints"] for record in records) >= 1


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    port = free_port()
    with llama_server(FILE, port, context=512):
        yield f"http://127.0.0.1:{port}"


def test_a_llama_cpp_server(server: str, tmp_path: Path) -> None:
    records = batch(tmp_path / "http", "--no-hints", "--engine", "http", "--base-url", server, model=FILE)
    assert all(record["counts"]["tokens"] > 5 for record in records)
    hinted = batch(
        tmp_path / "hints", "--end-of-think-hints", "1", "--engine", "http", "--base-url", server, model=FILE
    )
    assert sum(record["counts"]["hints"] for record in hinted) >= 1


def test_rows_and_lora(hinted: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    """Rows of all traces, whatever they answer: what is tested is the way from traces to a model that loads."""
    from start_agent.data.rows import make_row
    from start_agent.errors import RowError

    tokenizer, rows = Tokenizer.from_pretrained(str(MODEL)), tmp_path / "rows.jsonl"
    with rows.open("w") as file:
        for record in hinted[1]:
            try:
                row = make_row(Trace.from_json(record["trace"]), tokenizer, key=record["key"])
            except RowError:
                continue
            file.write(json.dumps(row.to_json()) + "\n")
    small = ("--max-steps", "2", "--batch-size", "2", "--max-length", "512", "--lora-rank", "4", "--device", "cpu")
    run("sft", "--model", MODEL, "--data", rows, *small, "--no-bf16", "--output-dir", tmp_path / "tuned")
    trace = Trace.from_json(
        json.loads(run("solve", "--json", "--model", tmp_path / "tuned", *SHORT, "--no-hints", QUESTION).stdout)
    )
    assert trace.count(SpanKind.MODEL) > 5


def test_selecting_showing_and_exporting(
    hinted: tuple[Path, list[dict[str, Any]]], alone: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """The right answers are those that the model gives, so that there are traces to select."""
    answers = {record["question"]: record["answer"] for record in alone[1] if record["answer"]}
    problems = [json.loads(line) for line in PROBLEMS.read_text().splitlines()]
    mine = [row | {"answer": answers[row["question"]]} for row in problems if row["question"] in answers]
    if not mine:  # it boxed nothing: what is not there cannot be selected, and is said so
        done = subprocess.run(
            [sys.executable, "-m", "start_agent", "select", "--kind", "rft", "--runs", alone[0], "--output-dir", "x"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 2 and "no trace is left" in done.stderr
        return
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mine))
    columns = ("--question-column", "question", "--answer-column", "answer")
    output = tmp_path / "run"
    run(
        *("batch", "--model", MODEL, "--data", tmp_path / "mine.jsonl", *columns),
        *(*SHORT, "--no-hints", "--output-dir", output),
    )
    run("select", "--kind", "rft", "--runs", output, "--output-dir", tmp_path / "data")
    assert "rows, unchanged" in run("rows", "check", "--data", tmp_path / "data").stdout
    assert QUESTION or run("rows", "show", "--data", tmp_path / "data").stdout
    assert Path(
        run("rows", "export", "--data", tmp_path / "data", "--output-dir", tmp_path / "out").stdout.strip()
    ).is_file()
