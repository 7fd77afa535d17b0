"""The tests of code problems, decoded without unpickling."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pickle
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.errors import DataError
from start_agent.grading import cases
from start_agent.grading.cases import Case, read_cases, unpack, unpickled_string
from start_agent.problem import CodeTests

ROWS = [{"input": "1\n", "output": "2", "testtype": "stdin"}, {"input": "é", "output": "", "testtype": "stdin"}]


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def test_public_and_private_in_both_forms() -> None:
    text = json.dumps(ROWS)
    expected = [Case("1\n", "2"), Case("é", "")]
    assert read_cases(CodeTests(public=text)) == expected
    private = packed(pickle.dumps(text))
    assert read_cases(CodeTests(public=text, private=private)) == expected * 2
    assert read_cases(CodeTests(public="", private=text)) == expected


@given(st.text(), st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_a_pickled_string_is_read_as_it_was(text: str, protocol: int) -> None:
    assert unpickled_string(pickle.dumps(text, protocol)) == text


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (os.mkdir, (str(self.path),))


def test_a_pickle_that_does_something_is_refused_and_does_nothing(tmp_path: Path) -> None:
    target = tmp_path / "made"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(Evil(target), protocol)
        with pytest.raises(ValueError, match="an opcode that does not build a string"):
            unpickled_string(data)
        with pytest.raises(DataError, match="cannot read the private tests"):
            read_cases(CodeTests(private=packed(data)))
    assert not target.exists()
    pickle.loads(data)  # the same bytes, unpickled
    assert target.exists()


@pytest.mark.parametrize("thing", [5, ["a"], ("a", "b"), b"a", None, {"a": "b"}])
def test_a_pickle_of_anything_else(thing: object) -> None:
    with pytest.raises(ValueError, match="pickle"):
        unpickled_string(pickle.dumps(thing))


@given(st.binary(max_size=200))
def test_junk_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(data.decode("latin-1"))
    with contextlib.suppress(ValueError):
        unpickled_string(data)


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "MAX_BYTES", 1 << 20)
    with pytest.raises(ValueError, match="more than 1 MiB"):
        unpack(packed(b"0" * (64 << 20)))
    with pytest.raises(ValueError, match="ends too early"):
        unpack(base64.b64encode(zlib.compress(os.urandom(5000))[:3000]).decode())


@pytest.mark.parametrize(
    "public",
    ["[]", "", "[1]", '["x"]', '[{"input": "1"}]', '[{"input": 1, "output": "2"}]', "[" * 100_000, "{}", "neither"],
)
def test_wrong_tests_are_one_line(public: str) -> None:
    with pytest.raises(DataError) as caught:
        read_cases(CodeTests(public=public))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
