"""The run directory: records persist, truncated ones are pending again, other configurations are refused."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from start_agent.analysis.run import Run
from start_agent.batch.resume import differences
from start_agent.batch.store import (
    CONFIG,
    RECORDS,
    SUMMARY,
    RunDirectory,
    read_config,
    read_records,
    record_key,
)
from start_agent.errors import BatchError, FolderInUseError, RunDirectoryError
from start_agent.files import LOCK, lock_folder

OPTIONS = {"model": "pocket", "decoding": {"rounds": 1, "hints": True}}


def record(number: int, **more: Any) -> dict[str, Any]:
    return {"key": record_key("problem", number), "number": number, **more, "trace": {"schema": 1, "spans": []}}


def fill(path: Path, count: int) -> None:
    with RunDirectory.open(path, OPTIONS) as directory:
        for number in range(count):
            directory.append(record(number))


def numbers(path: Path) -> list[int]:
    return [found["number"] for found in read_records(path)]


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    fill(tmp_path / "new" / "run", 3)
    assert list(read_records(tmp_path / "new" / "run")) == [record(0), record(1), record(2)]
    with RunDirectory.open(tmp_path / "new" / "run", OPTIONS) as directory:
        assert directory.done == {bytes.fromhex(record_key("problem", number)) for number in range(3)}
        assert directory.truncated_bytes == 0
        directory.append(record(3))
    assert numbers(tmp_path / "new" / "run") == [0, 1, 2, 3]


def test_a_record_is_on_its_way_to_the_disk_when_append_returns(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path, OPTIONS) as directory:
        directory.append(record(0))
        assert numbers(tmp_path) == [0]


def test_a_key_is_there_once(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path, OPTIONS) as directory:
        directory.append(record(0))
        with pytest.raises(ValueError, match="already"):
            directory.append(record(0))


@pytest.mark.parametrize("left", [1, 8, 9, 40, 72, 73, 100, -2, -1])
def test_a_truncated_last_line_is_cut_off_and_pending(tmp_path: Path, left: int) -> None:
    fill(tmp_path, 3)
    whole = (tmp_path / RECORDS).read_bytes()
    begin = whole[:-1].rindex(b"\n") + 1
    (tmp_path / RECORDS).write_bytes(whole[: begin + left] if left > 0 else whole[:left])
    assert numbers(tmp_path) == [0, 1]
    with RunDirectory.open(tmp_path, OPTIONS) as directory:
        assert len(directory.done) == 2
        assert directory.truncated_bytes > 0
        directory.append(record(2))
    assert (tmp_path / RECORDS).read_bytes() == whole


def test_zeros_at_the_end_are_torn_too(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    whole = (tmp_path / RECORDS).read_bytes()
    (tmp_path / RECORDS).write_bytes(whole + bytes(4096))
    fill_again = RunDirectory.open(tmp_path, OPTIONS)
    fill_again.close()
    assert (tmp_path / RECORDS).read_bytes() == whole


def test_a_damaged_middle_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    lines = (tmp_path / RECORDS).read_bytes().splitlines(keepends=True)
    (tmp_path / RECORDS).write_bytes(lines[0] + b"rubbish\n" + lines[2])
    with pytest.raises(RunDirectoryError, match=r"line 2: not a record"):
        RunDirectory.open(tmp_path, OPTIONS)
    with pytest.raises(RunDirectoryError, match=r"line 2: not a record"):
        list(read_records(tmp_path))
    (tmp_path / RECORDS).write_bytes(lines[0] + lines[1] + lines[0])
    with pytest.raises(RunDirectoryError, match=r"line 3: duplicate key"):
        RunDirectory.open(tmp_path, OPTIONS)


def test_a_failed_start_fixes_no_configuration(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path, {"data": {"answer_column": "anser"}}):
        pass
    with RunDirectory.open(tmp_path, OPTIONS):
        pass
    assert read_config(tmp_path) == OPTIONS


@pytest.mark.parametrize("there", ["nothing", "folder", "files"])
def test_an_error_before_the_first_record_leaves_what_was_there(tmp_path: Path, there: str) -> None:
    run = tmp_path / "runs" / "new"
    if there != "nothing":
        run.mkdir(parents=True)
    if there == "files":
        (run / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError), RunDirectory.open(run, OPTIONS):
        assert (run / CONFIG).exists()
        raise ValueError
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("more", [RECORDS, "iteration-1", "config.json.mine"])
def test_an_error_removes_nothing_that_has_content(tmp_path: Path, more: str) -> None:
    run = tmp_path / "run"
    with pytest.raises(ValueError), RunDirectory.open(run, OPTIONS) as directory:
        if more == RECORDS:
            directory.append(record(0))
        else:
            (run / more).mkdir()
        raise ValueError
    assert (run / more).exists() and read_config(run) == OPTIONS
    with pytest.raises(ValueError), RunDirectory.open(run, OPTIONS):
        raise ValueError
    assert (run / more).exists() and read_config(run) == OPTIONS


def test_a_run_directory_that_cannot_be_opened_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        RunDirectory.open(tmp_path / "runs" / "new", {"not JSON": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_its_owner_removes_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening the file and locking it, another run fails and takes its files back."""
    flock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        (tmp_path / LOCK).unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    lock = lock_folder(tmp_path)
    with pytest.raises(FolderInUseError):
        lock_folder(tmp_path)
    os.close(lock)


def test_another_configuration_is_refused_with_the_difference(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    with pytest.raises(RunDirectoryError) as refused:
        RunDirectory.open(tmp_path, {"model": "pocket", "decoding": {"rounds": 2, "hints": True}, "new": None})
    assert "--rounds: 1 there, 2 now" in str(refused.value)
    assert "--new: unset there, null now" in str(refused.value)
    assert "hints" not in str(refused.value)
    assert "\n" not in str(refused.value)
    fill_again = RunDirectory.open(tmp_path, OPTIONS)  # the refusal has freed it and changed nothing
    assert len(fill_again.done) == 1
    fill_again.close()


def test_differences() -> None:
    assert differences({"a": {"b": 1}, "c": [1]}, {"a": {"b": 1}, "c": [1]}) == []
    assert differences({"a": {"b": 1}}, {"a": 3}) == ['--a: {"b": 1} there, 3 now']
    assert differences({"files": {"a.txt": "1"}}, {}) == ['content of a.txt: "1" there, unset now']
    assert differences({"base_digest": "1"}, {"base_digest": None}) == ['content of --model: "1" there, null now']


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    with (
        RunDirectory.open(tmp_path, OPTIONS),
        pytest.raises(RunDirectoryError, match=rf"another run \(process {os.getpid()}\)"),
    ):
        RunDirectory.open(tmp_path, OPTIONS)
    RunDirectory.open(tmp_path, OPTIONS).close()


def test_what_is_no_run_directory_is_said_in_one_line(tmp_path: Path) -> None:
    for read in (lambda: list(read_records(tmp_path)), lambda: read_config(tmp_path)):
        with pytest.raises(RunDirectoryError, match="is not a run directory"):
            read()
    (tmp_path / RECORDS).write_text("{}\n")
    with pytest.raises(RunDirectoryError, match=r"records but no config"):
        RunDirectory.open(tmp_path, OPTIONS)
    (tmp_path / CONFIG).write_text("[]")
    with pytest.raises(RunDirectoryError, match="cannot read"):
        RunDirectory.open(tmp_path, OPTIONS)
    (tmp_path / CONFIG).write_text('{"schema": 99}')
    with pytest.raises(RunDirectoryError, match="schema 99"):
        RunDirectory.open(tmp_path, OPTIONS)


def test_a_run_takes_its_folder_as_a_string(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path, OPTIONS) as directory:
        directory.append(record(0))
    assert numbers(tmp_path) == [0]
    run = Run(str(tmp_path))  # type: ignore[arg-type]
    assert run.path == tmp_path and len(list(run.records())) == 1


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunDirectoryError, match="is not a folder: choose another --output-dir"):
            RunDirectory.open(path, OPTIONS)


@pytest.mark.parametrize(
    ("code", "expected"),
    [(errno.EACCES, RunDirectoryError), (errno.EROFS, RunDirectoryError), (errno.ENOSPC, BatchError)],
)
def test_a_folder_that_cannot_be_created(
    code: int, expected: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(expected, match=os.strerror(code)):
        RunDirectory.open(tmp_path / "run", OPTIONS)


def test_a_full_disk_costs_the_record_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with RunDirectory.open(tmp_path, OPTIONS) as directory:
        directory.append(record(0))
        room = [20]

        def full(descriptor: int, content: bytes) -> int:
            if not room[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = write(descriptor, content[: room[0]])
            room[0] -= written
            return written

        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(BatchError, match="No space left on device; fix the problem"):
                directory.append(record(1))
        assert numbers(tmp_path) == [0]
        directory.append(record(1))
    assert numbers(tmp_path) == [0, 1]


def test_reading_without_traces(tmp_path: Path) -> None:
    trap = {"trace": {"schema": 1, "text": "x"}}
    odd = [record(0), record(1, text=', "trace": {"schema": 1'), record(2, meta=trap)]
    with RunDirectory.open(tmp_path, OPTIONS) as directory:
        for one in odd:
            directory.append(one)
    expected = [{name: value for name, value in one.items() if name != "trace"} for one in odd]
    assert list(read_records(tmp_path, traces=False)) == expected


def test_the_summary_of_an_earlier_end_goes_when_a_run_begins(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path, OPTIONS) as directory:
        directory.write_summary({"right": 1})
    assert json.loads((tmp_path / SUMMARY).read_text()) == {"right": 1}
    RunDirectory.open(tmp_path, OPTIONS).close()
    assert not (tmp_path / SUMMARY).exists()
    assert read_config(tmp_path) == OPTIONS
