"""Runs the scripts and notebooks of examples/ unchanged, each in a separate folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from start_agent.batch.store import read_records
from start_agent.pocket import weights_path
from tests.support import warm
from tests.support.gguf_files import write_gguf
from tests.support.ports import free_port
from tests.support.servers import STARTS, llama_server

EXAMPLES = Path(__file__).parents[2] / "examples"
QUESTION, ANSWER = "What is 48613 * 7957?", "386813641"


def run(name: str, *arguments: object, folder: Path) -> str:
    """What a script prints."""
    done = subprocess.run(
        [warm.python(), str(EXAMPLES / name), *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def python_path() -> str:
    """Relative entries mean this folder, not the one where an example runs."""
    return os.pathsep.join(str(Path(path).resolve()) for path in os.environ.get("PYTHONPATH", "").split(":") if path)


def executed(name: str, folder: Path, **values: tuple[str, str]) -> list[Any]:
    """The code cells of a notebook, run; ``values`` replace texts of it."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    for old, new in values.values():
        assert old in text
        text = text.replace(old, new)
    notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}})
    client.execute(env=os.environ | {"PYTHONPATH": python_path()})
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: Any, kind: str = "text/plain") -> str:
    """The value of a cell's last line."""
    return "".join(output.data.get(kind, "") for output in cell.outputs if output.output_type == "execute_result")


def test_one_question(tmp_path: Path) -> None:
    output = run("solve.py", QUESTION, folder=tmp_path)
    assert output.endswith(f"answer: {ANSWER}\n")
    assert "tool_output" in output


def test_a_grader_of_ones_own(tmp_path: Path) -> None:
    run("custom_grader.py", "run", folder=tmp_path)
    first = [record["key"] for record in read_records(tmp_path / "run")]
    assert len(first) == 12
    run("custom_grader.py", "run", folder=tmp_path)  # nothing is missing
    assert [record["key"] for record in read_records(tmp_path / "run")] == first


def test_hints_of_ones_own(tmp_path: Path) -> None:
    assert "with mine.compute.1, mine.compute.2" in run("own_hints.py", "runs", folder=tmp_path)


def test_training_rows(tmp_path: Path) -> None:
    assert "rows of 16 traces" in run("training_rows.py", "runs", folder=tmp_path)


@pytest.mark.server
@pytest.mark.timeout(STARTS + 100)
def test_a_server(tmp_path: Path) -> None:
    model, port = tmp_path / "pocket.gguf", free_port()
    write_gguf(weights_path(), model)
    with llama_server(model, port, context=1024):
        output = run("http_server.py", f"http://127.0.0.1:{port}", weights_path(), QUESTION, folder=tmp_path)
    assert f"{QUESTION}  {ANSWER}  (answered" in output


@pytest.mark.timeout(600)
def test_the_notebook_of_a_trace(tmp_path: Path) -> None:
    alone, trace, *_ = executed("solving.ipynb", tmp_path)
    assert ANSWER in shown(alone) and f"'{ANSWER}'" not in shown(alone)  # the model alone is wrong
    page = shown(trace, "text/html")
    assert "tool output (ok)" in page and f"answer <b>{ANSWER}</b>" in page


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_of_a_training(tmp_path: Path) -> None:
    cells = executed("training.ipynb", tmp_path, size=("PROBLEMS, STEPS = 120, 30", "PROBLEMS, STEPS = 60, 8"))
    first, last = map(float, shown(cells[3]).strip("()").split(","))
    assert last < first
    before, after, _ = map(float, shown(cells[4]).strip("()").split(","))
    assert 0 < before < 1 and 0 < after <= 1
    assert "tool output (ok)" in shown(cells[5], "text/html")
