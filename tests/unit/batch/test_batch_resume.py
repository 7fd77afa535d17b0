"""Which configurations may resume a directory: options that decide the records must not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from start_agent.batch.options import BatchOptions
from start_agent.batch.resume import ResumeRules
from start_agent.batch.store import RunDirectory, read_config, read_note, record_key
from start_agent.engines.http import HTTPOptions
from start_agent.engines.registry import ENGINES
from start_agent.engines.vllm import VLLMOptions
from start_agent.errors import RunDirectoryError
from start_agent.evaluation import RunConfig
from start_agent.fields import deciding, flag_of, runtime_names
from start_agent.tasks.options import DataOptions

RULES = ResumeRules.of({"batch": BatchOptions, "data": DataOptions, "vllm engine": VLLMOptions})


def configuration(samples: int = 1, limit: int | None = 10, **more: Any) -> dict[str, Any]:
    data = DataOptions(task="gsm8k", limit=limit)
    return {"batch": deciding(BatchOptions(samples=samples)), "data": deciding(data), **more}


def start(path: Path, config: dict[str, Any]) -> set[bytes]:
    """Go on in a directory and add a record; the keys that it had."""
    with RunDirectory.open(path, config, rules=RULES) as directory:
        there = set(directory.done)
        directory.append({"key": record_key("problem", len(there)), "trace": {}})
        return there


def test_how_a_run_is_carried_out_decides_nothing() -> None:
    names = runtime_names(BatchOptions, *ENGINES.option_models().values())
    for name in ("base_url", "read_timeout", "gpu_memory_utilization", "enforce_eager", "tensor_parallel_size"):
        assert name in names
    for name in ("dtype", "context_length", "samples", "device"):
        assert name not in names
    assert deciding(HTTPOptions(base_url="http://a/v1")) == deciding(HTTPOptions(base_url="http://b:9/v1"))


def test_limit_and_samples_may_grow(tmp_path: Path) -> None:
    start(tmp_path, configuration())
    assert len(start(tmp_path, configuration(samples=4))) == 1
    assert len(start(tmp_path, configuration(samples=4, limit=500))) == 2
    assert len(start(tmp_path, configuration(samples=4, limit=None))) == 3
    assert read_config(tmp_path) == configuration(samples=4, limit=None)


@pytest.mark.parametrize("less", [configuration(samples=1), configuration(samples=4, limit=9)])
def test_they_may_not_shrink(tmp_path: Path, less: dict[str, Any]) -> None:
    start(tmp_path, configuration(samples=2))
    start(tmp_path, configuration(samples=4))  # what has grown is the measure from then on
    with pytest.raises(RunDirectoryError) as refused:
        start(tmp_path, less)
    assert "there" in str(refused.value)
    assert read_config(tmp_path) == configuration(samples=4)


def test_all_is_more_than_any_number(tmp_path: Path) -> None:
    start(tmp_path, configuration(limit=None))
    with pytest.raises(RunDirectoryError, match=r"--limit: null there, 1000 now"):
        start(tmp_path, configuration(limit=1000))


def test_what_older_versions_stored_and_lacked() -> None:
    old: dict[str, Any] = {"batch": {"samples": 1}, "vllm engine": {"dtype": "auto", "gpu_memory_utilization": 0.9}}
    new = {"batch": {"samples": 1}, "vllm engine": deciding(VLLMOptions())}
    assert RULES.differences(old, new) == []
    new = {"batch": {"samples": 1}, "vllm engine": deciding(VLLMOptions(context_length=64))}
    assert RULES.differences(old, new) == ["--context-length: null there, 64 now"]


def test_a_file_may_lie_elsewhere_but_not_change() -> None:
    def of(path: str, digest: str) -> dict[str, Any]:
        return {"data": {"data": path}, "files": {path: digest}}

    assert RULES.differences(of("a.jsonl", "1"), of("/b/c.jsonl", "1")) == []
    assert RULES.differences(of("a.jsonl", "1"), of("a.jsonl", "2"))
    assert RULES.differences(of("a.jsonl", "1"), of("b.jsonl", "2"))
    folder = {"data": {"data": "set"}, "files": {"set/a": "1", "set/b": "2"}}
    moved = {"data": {"data": "/s/"}, "files": {"/s/a": "1", "/s/b": "2"}}
    assert RULES.differences(folder, moved) == []
    assert RULES.differences(folder, folder | {"data": {"data": "./set/"}}) == []
    other = {"data": {"data": "/s/a"}, "files": {"/s/a": "1", "/s/b": "2"}}
    assert RULES.differences(folder, other)


def test_a_name_of_something_else_may_be_that_of_a_file() -> None:
    """The pocket model, by its folder or its name, on the problems called pocket."""
    folder = {"model": {"model": "m"}, "data": {"task": "pocket"}, "files": {"m": "1"}}
    named = {"model": {"model": "pocket"}, "data": {"task": "pocket"}, "files": {"pocket": "1"}}
    assert RULES.differences(folder, named) == RULES.differences(named, folder) == []
    other = {"model": {"model": "pocket"}, "data": {"task": "m"}, "files": {"pocket": "1"}}
    assert RULES.differences(folder, other) == ['--task: "pocket" there, "m" now']


def test_two_files_may_not_change_places() -> None:
    one = {"model": {"hint_files": ["a", "b"]}, "files": {"a": "1", "b": "2"}}
    other = {"model": {"hint_files": ["b", "a"]}, "files": {"a": "1", "b": "2"}}
    assert RULES.differences(one, other)


def test_what_is_known_later_is_noted_once_and_compared(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path, configuration(), rules=RULES) as directory:
        assert read_note(tmp_path, "prompt") is None
        directory.settle("prompt", {"sha256": "a"})
        directory.settle("prompt", {"sha256": "b"})  # there are no records yet
        directory.append({"key": record_key("problem", 0), "trace": {}})
    with RunDirectory.open(tmp_path, configuration(limit=20), rules=RULES) as directory:
        directory.settle("prompt", {"sha256": "b"})
        with pytest.raises(RunDirectoryError, match="prompt sha256"):
            directory.settle("prompt", {"sha256": "c"})
        directory.settle("another", 1)  # what an older version did not note
    assert (read_note(tmp_path, "prompt"), read_note(tmp_path, "another")) == ({"sha256": "b"}, 1)
    assert read_config(tmp_path)["data"]["limit"] == 20
    assert read_note(tmp_path / "nowhere", "prompt") is None


@pytest.mark.parametrize(
    ("first", "later", "flags"),
    [
        ({"strategy": "majority", "votes": 3}, {"strategy": "majority", "votes": 5}, ["--votes"]),
        ({"strategy": "majority", "votes": 3}, {}, ["--votes", "--strategy"]),
        ({}, {"strategy": "majority"}, ["--strategy"]),
        ({}, {"engine": "vllm"}, ["--engine", "--device"]),
        ({"chat_template_kwargs": {"a": 1}}, {"chat_template_kwargs": {"a": 2}}, ["--chat-template-kwargs"]),
        ({"temperature": 0.5, "seed": 1}, {"temperature": 0.6, "seed": 2}, ["--temperature", "--seed"]),
    ],
)
def test_what_differs_is_named_by_its_flag(first: dict[str, Any], later: dict[str, Any], flags: list[str]) -> None:
    old, new = (RunConfig.of(task="pocket", **options) for options in (first, later))
    found = [line.partition(": ")[0] for line in new.rules.differences(old.stored(), new.stored())]
    assert set(flags) <= set(found)
    names = {flag_of(name) for model in RunConfig.models() for name in model.model_fields}
    assert set(found) <= names
