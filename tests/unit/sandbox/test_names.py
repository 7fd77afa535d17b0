"""Names of files in a session's working folder."""

from __future__ import annotations

import posixpath
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sandbox import FileNameError
from sandbox.files import checked
from sandbox.inside.names import MOST_BYTES, MOST_PART_BYTES, MOST_PARTS, objection
from sandbox.testing_files import BAD_NAMES

_ODD = st.text(st.sampled_from("ab./\\\0\n\x7f\u202eé\ud800 "), max_size=12)


@given(_ODD | st.text(max_size=MOST_BYTES + 2))
def test_a_valid_name_stays_in_its_folder_and_can_be_displayed(name: str) -> None:
    assume(objection(name) is None)
    whole = posixpath.normpath(posixpath.join("/home", name))
    assert whole == f"/home/{name}"
    assert not any(part.startswith(".") for part in name.split("/"))
    assert len(name.encode()) <= MOST_BYTES and name.count("/") < MOST_PARTS
    assert all(0 < len(part.encode()) <= MOST_PART_BYTES for part in name.split("/"))
    assert not {unicodedata.category(character) for character in name} & {"Cc", "Cs", "Zl", "Zp"}
    assert not any(
        unicodedata.bidirectional(character) in ("RLO", "LRO", "RLE", "LRE", "RLI", "LRI") for character in name
    )
    assert checked(name).decode() == name


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(FileNameError) as raised:
        checked(name)
    assert raised.value.name == name
    assert isinstance(raised.value, ValueError)
    str(raised.value).encode()  # a surrogate in the name is escaped


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "data/a b (1).csv",
        "Bildschirmfoto um 10.00\u202fUhr.png",
        "データ.csv",
        "می\u200cخواهم.txt",
        "x" * MOST_PART_BYTES,
        "a/b/c/d/e/f/g/h",
        "trailing.",
        "a..b",
        "~",
        "-rf",
        "CON",
    ],
)
def test_ordinary_names_are_valid(name: str) -> None:
    assert objection(name) is None
