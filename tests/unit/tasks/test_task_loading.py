"""Files → problems."""

from __future__ import annotations

import builtins
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from start_agent import config
from start_agent.errors import ConfigError, DataError, MissingExtraError
from start_agent.tasks import DataOptions, Kind, Problem, load, stream

COLUMNS = {"question_column": "q", "answer_column": "a"}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


def jsonl(folder: Path, *rows: dict[str, Any] | str, name: str = "set.jsonl") -> str:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(folder / name)


def answers(problems: list[Problem]) -> list[str]:
    return [problem.answer for problem in problems]


def test_jsonl_and_parquet_give_the_same(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"q": f"Question {n}?", "a": f"0{n}", "l": n % 3} for n in range(50)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "set.parquet")
    lines = load(data=jsonl(tmp_path, *rows), level_column="l", **COLUMNS)
    table = load(data=str(tmp_path / "set.parquet"), level_column="l", **COLUMNS)
    assert lines == table and answers(lines)[:3] == ["00", "01", "02"] and lines[5].meta == {"level": 2}
    assert answers(load(data=str(tmp_path / "set.parquet"), limit=2, **COLUMNS)) == ["00", "01"]


def test_a_known_task_from_a_file_and_a_folder(tmp_path: Path) -> None:
    for part in (1, 2):
        row = {"question": f"Q{part}", "answer": f"#### {part}"}
        jsonl(tmp_path, row, name=f"part{part}.jsonl")
    (tmp_path / "README.md").write_text("not data")
    assert answers(load("gsm8k", data=str(tmp_path))) == ["1", "2"]
    assert answers(load("gsm8k", data=str(tmp_path / "part2.jsonl"))) == ["2"]


def test_choices_make_it_multiple_choice(tmp_path: Path) -> None:
    (problem,) = load(data=jsonl(tmp_path, {"q": "Q", "a": "B", "c": ["x", "y"]}), choices_column="c", **COLUMNS)
    assert (problem.kind, problem.choices, problem.answer) == (Kind.CHOICE, ("x", "y"), "B")


def test_mixed_cells_stay_what_they_were(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"q": "x", "a": 5}, {"q": "y", "a": "2024-01-02"}, {"q": "z", "a": "\\frac12 – é"}]
    assert answers(load(data=jsonl(tmp_path, *rows), **COLUMNS)) == ["5", "2024-01-02", "\\frac12 – é"]


def test_a_repeated_question_is_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = jsonl(tmp_path, {"q": "x", "a": "1"}, {"q": "x", "a": "2"}, {"q": "y", "a": "3"}, {"q": "z", "a": "4"})
    assert answers(load(data=path, limit=2, **COLUMNS)) == ["1", "3"]
    with caplog.at_level(logging.WARNING):
        assert answers(load(data=path, **COLUMNS)) == ["1", "3", "4"]
    assert "1 rows repeat a question" in caplog.text


def test_it_streams(tmp_path: Path) -> None:
    path = jsonl(tmp_path, *({"q": f"Q{n}", "a": "1"} for n in range(20_000)))
    problems: Iterator[Problem] = stream(DataOptions(data=path, question_column="q", answer_column="a"))
    assert next(problems).question == "Q0"
    assert sum(1 for _ in problems) == 19_999


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"q": "x", "b": 1}], "row 1: there is no column 'a'; the columns are q, b"),
        ([{"q": "x", "a": "1"}, {"q": "y", "b": "7"}], "row 2: the column 'a' holds nothing"),
        ([{"q": "x", "a": "1"}, {"q": "", "a": "7"}], "row 2: the column 'q' is empty"),
        ([{"q": "x", "a": True}], "holds a bool"),
        ([{"q": "x", "a": "1"}, "{broken"], "cannot read"),
        (["no json at all"], "cannot read"),
        ([], "has no rows"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, rows: list[Any], words: str) -> None:
    with pytest.raises(DataError) as caught:
        load(data=jsonl(tmp_path, *rows), **COLUMNS)
    message = str(caught.value)
    assert words in message and "set.jsonl" in message and "\n" not in message and len(message) < 600


def test_files_that_are_not_there_or_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("q,a\n1,2\n")
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    for path, words in [
        (tmp_path / "set.csv", "no known format"),
        (tmp_path / "none.jsonl", "no file or folder"),
        (tmp_path / "none", "no file or folder"),
        (tmp_path / "junk.parquet", "cannot read"),
    ]:
        with pytest.raises(DataError, match=words):
            load(data=str(path), **COLUMNS)
    (tmp_path / "only").mkdir()
    with pytest.raises(DataError, match="no JSONL or Parquet files"):
        load(data=str(tmp_path / "only"), **COLUMNS)
    jsonl(tmp_path, {"q": "x", "a": "1"})
    with pytest.raises(DataError, match="several formats"):
        load(data=str(tmp_path), **COLUMNS)


@pytest.mark.parametrize("task", ["gsm8k", "livecodebench"])
def test_a_hub_set_without_network_is_one_line(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(**arguments: object) -> None:
        raise ConnectionError("Couldn't reach the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError, match="Couldn't reach the Hub and more; check the name and the network") as caught:
        load(task)
    assert "\n" not in str(caught.value)


def test_what_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[dict[str, Any]] = []

    def recorded(**arguments: Any) -> list[dict[str, str]]:
        asked.append(arguments)
        return [{"question": "Q", "answer": "#### 1"}]

    monkeypatch.setattr(datasets, "load_dataset", recorded)
    load("gsm8k")
    load("gsm8k", split="train", stream=True)
    load(data="me/mine", subset="sub", question_column="question", answer_column="answer")
    with pytest.raises(DataError):
        load("livecodebench")
    assert asked[0] == {"path": "openai/gsm8k", "name": "main", "split": "test", "streaming": False}
    assert asked[1] == {"path": "openai/gsm8k", "name": "main", "split": "train", "streaming": True}
    assert asked[2] == {"path": "me/mine", "name": "sub", "split": "test", "streaming": False}
    assert asked[3]["path"] == "json" and asked[3]["streaming"] and "code_generation_lite" in asked[3]["data_files"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "name a --task"),
        ({"task": "nonsense"}, "no task 'nonsense': known are gsm8k"),
        ({"data": "x"}, "needs --question-column and --answer-column"),
        ({"data": "x", "question_column": "q"}, "needs --question-column and --answer-column"),
        ({"task": "gsm8k", "answer_column": "a"}, "--answer-column: the task 'gsm8k' knows its columns"),
        ({"task": "pocket", "data": "x"}, "made, not read"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load(**options)
    assert "\n" not in str(caught.value)


def test_options_from_layers() -> None:
    options = config.build(DataOptions, {"task": "gsm8k", "limit": "3"}, {"data": "file.jsonl"})
    assert (options.task, options.limit, options.data) == ("gsm8k", 3, "file.jsonl")
    with pytest.raises(ConfigError, match="--limit"):
        config.build(DataOptions, {"limit": "0"})


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "datasets":
            raise ImportError("no datasets")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"start-agent\[data\]"):
        load(data=jsonl(tmp_path, {"q": "x", "a": "1"}), **COLUMNS)
