"""Files → problems."""

from __future__ import annotations

import builtins
import json
import logging
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from start_agent import fields
from start_agent.errors import ConfigError, DataError, MissingExtraError
from start_agent.tasks import DataOptions, Kind, Problem, load, stream

LITE = "hf://datasets/livecodebench/code_generation_lite"
COLUMNS = {"question_column": "q", "answer_column": "a"}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


def jsonl(folder: Path, *rows: dict[str, Any] | str, name: str = "set.jsonl") -> str:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(folder / name)


def parquet(folder: Path, *rows: dict[str, Any], schema: Any = None) -> str:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema), folder / "set.parquet")
    return str(folder / "set.parquet")


def answers(problems: list[Problem]) -> list[str]:
    return [problem.answer for problem in problems]


def test_jsonl_and_parquet_give_the_same(tmp_path: Path) -> None:
    rows = [{"q": f"Question {n}?", "a": f"0{n}", "l": n % 3} for n in range(50)]
    parquet(tmp_path, *rows)
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


def choice(tmp_path: Path, choices: Any, answer: Any) -> tuple[tuple[str, ...], str]:
    (problem,) = load(data=jsonl(tmp_path, {"q": "Q", "a": answer, "c": choices}), choices_column="c", **COLUMNS)
    return problem.choices, problem.answer


def test_forms_of_choices(tmp_path: Path) -> None:
    assert choice(tmp_path, {"A": "x", "B": "y", "C": None}, "b") == (("x", "y"), "B")
    assert choice(tmp_path, [{"text": "x"}, {"text": "y"}], "y") == (("x", "y"), "B")
    assert choice(tmp_path, [3, 1.5, 7], "7") == (("3", "1.5", "7"), "C")
    assert choice(tmp_path, [3, 4, 7], 1) == (("3", "4", "7"), "B")
    with pytest.raises(DataError, match="1 may be the correct choice or its index"):
        choice(tmp_path, [3, 1, 7], 1)
    for unknown in ([float("nan"), 1], [None, "x"], "x", {"A": "x"}, [{"text": "x", "label": "A"}, {"text": "y"}]):
        with pytest.raises(DataError, match="unsupported form"):
            choice(tmp_path, unknown, "A")


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_json_in_every_shape(tmp_path: Path, indent: int | None) -> None:
    """One object, several, a list of them, on one line or many, with a byte order mark or none."""
    rows = [{"q": "x", "a": "{"}, {"q": "y", "a": 2}]
    texts = [json.dumps(row, indent=indent) for row in rows]
    for text in ("\n\n".join(texts), f"\n{json.dumps(rows, indent=indent)}\n", "\r\n".join(texts) + "\r\n"):
        for mark in ("", "\ufeff"):
            (tmp_path / "set.json").write_text(mark + text, encoding="utf-8", newline="")
            assert answers(load(data=str(tmp_path / "set.json"), **COLUMNS)) == ["{", "2"]
    (tmp_path / "set.json").write_text(texts[0])
    assert answers(load(data=str(tmp_path / "set.json"), **COLUMNS)) == ["{"]


def test_a_folder_of_splits(tmp_path: Path) -> None:
    """What is called by its split is not mixed with another."""
    for name in ("train-00000-of-00001", "test", "test2", "validation_1"):
        jsonl(tmp_path, {"q": name, "a": name}, name=f"{name}.jsonl")
    (tmp_path / "more.jsonl").mkdir()
    assert answers(load(data=str(tmp_path), **COLUMNS)) == ["test", "test2"]
    assert answers(load(data=str(tmp_path), split="train", **COLUMNS)) == ["train-00000-of-00001"]
    with pytest.raises(DataError, match="no split 'dev'; use --split with one of test, train, validation"):
        load(data=str(tmp_path), split="dev", **COLUMNS)


def test_mixed_cells_stay_what_they_were(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"q": "x", "a": 5}, {"q": "y", "a": "2024-01-02"}, {"q": "z", "a": "\\frac12 – é"}]
    assert answers(load(data=jsonl(tmp_path, *rows), **COLUMNS)) == ["5", "2024-01-02", "\\frac12 – é"]


def test_a_repeated_question_is_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = jsonl(tmp_path, {"q": "x", "a": "1"}, {"q": "x", "a": "2"}, {"q": "y", "a": "3"}, {"q": "z", "a": "4"})
    assert answers(load(data=path, limit=2, **COLUMNS)) == ["1", "3"]
    with caplog.at_level(logging.WARNING):
        assert answers(load(data=path, **COLUMNS)) == ["1", "3", "4"]
    assert "skipped 1 rows" in caplog.text


def test_it_streams(tmp_path: Path) -> None:
    path = jsonl(tmp_path, *({"q": f"Q{n}", "a": "1"} for n in range(20_000)))
    problems: Iterator[Problem] = stream(DataOptions(data=path, question_column="q", answer_column="a"))
    assert next(problems).question == "Q0"
    assert sum(1 for _ in problems) == 19_999


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"q": "x", "b": 1}], "row 1: there is no column 'a'; the columns are q, b"),
        ([{"q": "x", "a": "1"}, {"q": "y", "b": "7"}], "row 2: there is no column 'a'; the columns are q, b"),
        ([{"q": "x", "a": "1"}, {"q": "y", "a": None}], "row 2: the column 'a' must be text, but is missing"),
        (['{"q": "x", "a": NaN}'], "row 1: the column 'a' must be text, but is nan"),
        (['{"q": "x", "a": -Infinity}'], "row 1: the column 'a' must be text, but is -inf"),
        (['{"q": "x", "a": "1"}', '["x", "1"]'], "line 2: expected an object with columns, found a list"),
        (['[{"q": "x", "a": "1"}, 5]'], "entry 2: expected an object with columns, found a int"),
        ([{"q": "x", "a": "1"}, {"q": "", "a": "7"}], "row 2: the column 'q' is empty"),
        ([{"q": "x", "a": True}], "must be text, but is a bool"),
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
        (tmp_path / "set.csv", "unknown format"),
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
    assert asked[3]["path"] == "json" and asked[3]["streaming"] and asked[3]["data_files"] == [f"{LITE}/test*.jsonl"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "use --task"),
        ({"task": "nonsense"}, "no task 'nonsense': did you mean 'commonsenseqa'"),
        ({"task": "zzz"}, "no task 'zzz': known are gsm8k"),
        ({"task": "start_agent.tasks:nothing"}, "cannot import 'start_agent.tasks:nothing'"),
        ({"task": "start_agent.tasks:load"}, "is a function: expected Task"),
        ({"data": "x"}, "needs --question-column and --answer-column"),
        ({"data": "x", "question_column": "q"}, "needs --question-column and --answer-column"),
        ({"task": "gsm8k", "answer_column": "a"}, "--answer-column: the task 'gsm8k' defines its columns"),
        ({"task": "pocket", "data": "x"}, "generates its problems"),
        ({"task": "pocket", "limit": 0}, "--limit"),
        ({"task": "pocket", "limits": 5}, "did you mean 'limit'"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load(**options)
    assert "\n" not in str(caught.value)


def test_options_from_layers() -> None:
    options = fields.build(DataOptions, {"task": "gsm8k", "limit": "3"}, {"data": "file.jsonl"})
    assert (options.task, options.limit, options.data) == ("gsm8k", 3, "file.jsonl")
    with pytest.raises(ConfigError, match="--limit"):
        fields.build(DataOptions, {"limit": "0"})


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = parquet(tmp_path, {"q": "x", "a": "1"})
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "pyarrow":
            raise ImportError("no pyarrow")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"start-agent\[data\]"):
        load(data=path, **COLUMNS)
    assert answers(load(data=jsonl(tmp_path, {"q": "x", "a": "1"}), **COLUMNS)) == ["1"]  # needs nothing


@pytest.mark.parametrize(
    "spelled",
    ["18446744073709551617", "-9007199254740993", "0.1", "1.10", "1e400", "0.30000000000000000001", "9" * 5000, "2.50"],
)
def test_a_number_in_json_is_the_number_that_stands_there(tmp_path: Path, spelled: str) -> None:
    path = jsonl(tmp_path, f'{{"q": "x", "a": {spelled}}}', {"q": "y", "a": 0.5}, {"q": "z", "a": "2024-03-05"})
    assert answers(load(data=path, **COLUMNS)) == [spelled, "0.5", "2024-03-05"]


def test_numbers_in_parquet(tmp_path: Path) -> None:
    import pyarrow

    rows = [{"q": "x", "a": Decimal(2**64 + 1)}, {"q": "y", "a": Decimal("1E+3")}]
    schema = pyarrow.schema([("q", pyarrow.string()), ("a", pyarrow.decimal256(40, 0))])
    assert answers(load(data=parquet(tmp_path, *rows, schema=schema), **COLUMNS)) == ["18446744073709551617", "1000"]
    schema = pyarrow.schema([("q", pyarrow.string()), ("a", pyarrow.uint64())])
    path = parquet(tmp_path, {"q": "x", "a": 2**64 - 1}, schema=schema)
    assert answers(load(data=path, **COLUMNS)) == [str(2**64 - 1)]
    with pytest.raises(DataError, match="row 2: the column 'a' must be text, but is nan"):
        load(data=parquet(tmp_path, {"q": "x", "a": 1.5}, {"q": "y", "a": float("nan")}), **COLUMNS)
    for kind, value, text in [
        (pyarrow.float32(), 0.1, "0.1"),
        (pyarrow.float32(), 5.0, "5.0"),
        (pyarrow.date32(), date(2024, 3, 5), "2024-03-05"),
        (pyarrow.timestamp("us"), datetime(2024, 3, 5, 1, 2), "2024-03-05 01:02:00"),
        (pyarrow.time64("us"), time(14, 30), "14:30:00"),
    ]:
        schema = pyarrow.schema([("q", pyarrow.string()), ("a", kind)])
        assert answers(load(data=parquet(tmp_path, {"q": "x", "a": value}, schema=schema), **COLUMNS)) == [text]


def test_columns_may_come_late_and_change(tmp_path: Path) -> None:
    rows = [{"q": f"{n} " + "x" * 20_000, "a": n, "l": None} for n in range(1000)]
    path = jsonl(tmp_path, *rows, {"q": "y", "a": "z", "l": "hard", "more": {"a": 1}}, {"q": "z", "a": "1", "l": 5})
    problems = load(data=path, level_column="l", **COLUMNS)
    assert len(problems) == 1002 and [problem.meta for problem in problems[-3:]] == [
        {},
        {"level": "hard"},
        {"level": 5},
    ]


@pytest.mark.parametrize("name", ["run [2].jsonl", "set*.jsonl", "what?.jsonl", "{a,b}.ndjson", "a b%20.JSONL"])
def test_a_name_is_no_pattern(tmp_path: Path, name: str) -> None:
    jsonl(tmp_path, {"q": "other", "a": "9"}, name="set1.jsonl")
    assert answers(load(data=jsonl(tmp_path, {"q": "x", "a": "1"}, name=name), **COLUMNS)) == ["1"]


def test_what_lies_beside_the_data_is_no_data(tmp_path: Path) -> None:
    jsonl(tmp_path, {"q": "x", "a": "1"})
    (tmp_path / "._set.jsonl").write_bytes(b"\0\5\x16\7")
    (tmp_path / ".hidden.json").write_text("{}")
    for name in ("dataset_info.json", "state.json"):
        (tmp_path / name).write_text("{}")
    assert answers(load(data=str(tmp_path), **COLUMNS)) == ["1"]


def test_json_in_its_forms(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('\ufeff\n [{"q": "x", "a": 1},\n {"q": "y", "a": 2}]', encoding="utf-8")
    assert answers(load(data=str(tmp_path / "list.json"), **COLUMNS)) == ["1", "2"]
    (tmp_path / "bytes.jsonl").write_bytes(b'{"q": "x", "a": "\xff"}\n')
    with pytest.raises(DataError, match="cannot read"):
        load(data=str(tmp_path / "bytes.jsonl"), **COLUMNS)


def contest(day: str, name: str) -> dict[str, Any]:
    tests = json.dumps([{"input": "", "output": "1", "testtype": "stdin"}])
    return {"question_content": name, "public_test_cases": tests, "contest_date": f"{day}T00:00:00"}


def test_problems_of_a_release_and_between_dates(tmp_path: Path) -> None:
    for number, day in enumerate(("2023-05-07", "2024-04-01", "2024-06-15"), start=1):
        name = "test.jsonl" if number == 1 else f"test{number}.jsonl"
        jsonl(tmp_path, contest(day, f"v{number}"), name=name)

    def chosen(**options: Any) -> list[str]:
        return [problem.question for problem in load("livecodebench", data=str(tmp_path), **options)]

    assert chosen() == chosen(release="release_v3") == ["v1", "v2", "v3"]
    assert chosen(release="release_v2") == ["v1", "v2"]
    assert chosen(release="v3") == ["v3"] and chosen(release="v2_v3") == ["v2", "v3"]
    assert chosen(start_date="2024-04-01") == ["v2", "v3"]
    assert chosen(start_date="2023-06-01", end_date="2024-06-14") == ["v2"]
    assert chosen(end_date="2024-06-15", release="release_v3", limit=1) == ["v1"]
    for release in ("v", "release_v2_v3", "v3_v2", "latest", "v0"):
        with pytest.raises(ConfigError, match="--release"):
            chosen(release=release)
    with pytest.raises(DataError, match=r"missing test4.jsonl"):
        chosen(release="release_v4")
    with pytest.raises(DataError, match="no rows from 2025-01-01 to the last"):
        chosen(start_date="2025-01-01")
    path = jsonl(tmp_path, {"q": "x", "a": "1"})
    with pytest.raises(DataError, match="has no date"):
        load(data=path, start_date="2024-01-01", **COLUMNS)
    with pytest.raises(ConfigError, match="no releases"):
        load(data=path, release="v1", **COLUMNS)
    with pytest.raises(ConfigError, match="--start-date"):
        fields.build(DataOptions, {"start_date": "yesterday"})


def test_releases_are_asked_of_the_hub_by_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def recorded(**arguments: Any) -> list[dict[str, Any]]:
        asked.append(arguments["data_files"])
        return [contest("2024-01-01", "x")]

    monkeypatch.setattr(datasets, "load_dataset", recorded)
    (problem,) = load("livecodebench", release="v2_v3", tolerance=1e-4)
    assert asked == [[f"{LITE}/test2.jsonl", f"{LITE}/test3.jsonl"]]
    assert problem.tests is not None and problem.tests.tolerance == 1e-4
    assert problem.key == load("livecodebench")[0].key  # how it is judged is no part of what is asked
