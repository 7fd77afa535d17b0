"""Every kind of invalid file is refused in one line: where, which hint, why, what to do."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hints import HintError, HintFileError, HintLibrary
from hints.files import parse

GOOD = """\
version: 1
hints:
  - id: a.1
    version: 1
    domain: math
    function: logic_check
    placement: connective
    source: me
    text: |
      let me check.
      ```python
  - id: a.2
    domain: code
    function: debug
    template: class
    placement: end_of_think
    text: |
      Wait, let me run it.
      ```python
      # Print.
"""


def refused(content: str | bytes) -> HintFileError:
    raw = content.encode() if isinstance(content, str) else content
    with pytest.raises(HintFileError) as caught:
        parse(raw, "some/file.yaml")
    error = caught.value
    message = str(error)
    assert "\n" not in message and message.isprintable()
    assert message.startswith(f"some/file.yaml:{error.line}: ")
    assert error.hint_id is None or f": hint `{error.hint_id}`: " in message
    assert message.endswith(error.reason) or not error.reason.isprintable()
    return error


def test_the_good_file_is_good() -> None:
    assert [hint.id for hint in parse(GOOD.encode(), "good").hints] == ["a.1", "a.2"]


@pytest.mark.parametrize(
    ("old", "new", "line", "hint_id", "reason"),
    [
        # keys
        ("    source: me", "    sauce: me", 8, "a.1", "unknown key `sauce`; remove it or use one of: id,"),
        ("version: 1\nhints", "version: 1\nmod: x\nhints", 2, None, "unknown key `mod`; remove it or use one of: v"),
        ("    source: me", "    <<: {version: 2}", 8, "a.1", "unknown key `<<`"),
        ("    source: me", "    1: me", 8, "a.1", "unknown key `1`"),
        ("    source: me", "    ? [x]\n    : me", 8, "a.1", "a key must be a plain word"),
        ("    source: me", "    domain: math", 8, "a.1", "the key `domain` is given twice"),
        ("    domain: code\n", "", 12, "a.2", "the key `domain` is missing; add it"),
        ("  - id: a.2\n    domain", "  - domain", 12, None, "the key `id` is missing"),
        ("version: 1\nhints", "hints", 1, None, "the key `version` is missing"),
        # values
        ("version: 1\nhints", "version: 2\nhints", 1, None, "2 is not a valid `version`; use 1"),
        ("version: 1\nhints", "version: 1\nmode: add\nhints", 2, None, "'add' is not a valid `mode`; use 'extend'"),
        ("domain: code", "domain: art", 13, "a.2", "'art' is not a valid `domain`; use 'math' or 'code'"),
        ("logic_check", "logic", 6, "a.1", "'logic' is not a valid `function`; use 'complex_calculation'"),
        ("logic_check", "debug", 6, "a.1", "`debug` does not go with domain `math`; use one of: complex"),
        ("debug", "logic_check", 14, "a.2", "`logic_check` does not go with domain `code`; use one of: debug"),
        ("    template: class\n", "", 12, "a.2", "a `debug` hint needs the key `template`"),
        ("template: class", "template: main", 15, "a.2", "'main' is not a valid `template`; use 'function',"),
        ("    source: me", "    template: stdin", 8, "a.1", "`template` goes with function `debug` only"),
        ("connective", "middle", 7, "a.1", "'middle' is not a valid `placement`; use 'connective'"),
        ("id: a.1", "id: a 1", 3, "a 1", "'a 1' is not a valid `id`; use letters"),
        ("id: a.1", "id: 17", 3, None, "`id` must be text, not 17; put it in quotes"),
        ("id: a.2", "id: a.1", 12, "a.1", "already used on line 3; give each hint its own id"),
        ("    version: 1", "    version: 0", 4, "a.1", "`version` must be a whole number of at least 1, not 0"),
        ("    version: 1", "    version: '1'", 4, "a.1", "`version` must be a whole number"),
        ("    version: 1", "    version: 0x1", 4, "a.1", "`0x1` is not a plain whole number"),
        ("source: me", "source: ''", 8, "a.1", "`source` is empty"),
        ("source: me", "source: yes", 8, "a.1", "a value of YAML type `bool` (`yes`) is not used in hint files"),
        ("source: me", "source: 2024-99-99", 8, "a.1", "YAML type `timestamp` (`2024-99-99`)"),
        # texts
        ("      let me check.\n      ```python\n", "", 9, "a.1", "the text is empty"),
        ("|\n      let me check.\n      ```python", "' let me.'", 9, "a.1", "begins with white space"),
        ("let me check", "Let me check", 9, "a.1", "but begins with 'L'; start in lower case"),
        ("let me check", "If so", 9, "a.1", "but begins with 'I'; start in lower case"),
        ("let me check", ", let me check", 9, "a.1", "begins with ','; start with a word"),
        ("Wait, let", "wait, let", 17, "a.2", "but begins with 'w'; start with a capital"),
        ("text: |\n      let", "text: >\n      let", 9, "a.1", "fence is not at the start of a line"),
        ("      ```python\n      # Print", "       ```python\n      # Print", 17, "a.2", "not at the start of a line"),
        ("```python\n      # Print", "```py\n      # Print", 17, "a.2", "not ```python alone on its line"),
        ("# Print.\n", "# Print.\n      ```\n", 17, "a.2", "more than one ``` fence"),
        ("text: |\n      Wait", "text: |-\n      Wait", 17, "a.2", "the text ends inside a line of code"),
        # shapes
        (GOOD[11:], "hints: []\n", 2, None, "`hints` is empty; add at least one hint"),
        (GOOD[11:], "hints:\n", 2, None, "`hints` must be a list of hints"),
        (GOOD[11:], "hints: {a: b}\n", 2, None, "`hints` must be a list of hints"),
        (GOOD[11:], "hints:\n- hello\n- id: a\n", 3, None, "a hint must be a mapping"),
        # YAML
        ("domain: math", "domain: [math", 6, None, "not valid YAML: "),
        ("    domain: code", "   domain: code", 13, None, "not valid YAML: "),
        ("domain: math", "domain: *math", 5, None, "aliases (`*name`) are not used"),
        ("source: me", "source: \x07", 8, None, "YAML forbids the character U+0007; remove it"),
        ("source: me", "source: !!python/name:os.system x", 8, "a.1", "not used in hint files"),
        ("hints:\n", "hints: !!set\n", 2, None, "not used in hint files|not valid YAML"),
        ("source: me", "source: &s me\n    id2: *s", 9, None, "aliases (`*name`) are not used"),
    ],
)
def test_a_fault_is_refused_where_it_is(old: str, new: str, line: int, hint_id: str | None, reason: str) -> None:
    assert old in GOOD
    error = refused(GOOD.replace(old, new, 1))
    assert (error.line, error.hint_id) == (line, hint_id)
    assert any(part in error.reason for part in reason.split("|"))


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ("", 1, "the file is empty; see"),
        ("\n# only a comment\n", 1, "the file is empty; see"),
        ("null\n", 1, "not a mapping of `version` and `hints` but a value of YAML type `null`"),
        ("\n- a\n- b\n", 2, "not a mapping of `version` and `hints` but a list"),
        ("just words\n", 1, "but plain text; see"),
        ("version: 1\nhints: &a [*a]\n", 2, "aliases"),
        ("version: 1\n---\nversion: 1\n", 2, "not valid YAML: but found another document"),
        ("[" * 20_000, 1, "nested too deeply"),
        (b"version: 1\nhints: \xff\xfe\n", 2, "not UTF-8 text; save the file as UTF-8"),
        ("version: 1\n".encode("utf-16"), 1, "not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_hint_file_is_refused(content: str | bytes, line: int, reason: str) -> None:
    error = refused(content)
    assert error.line == line
    assert reason in error.reason


def test_the_first_of_several_faults_is_reported_and_the_rest_counted() -> None:
    error = refused(GOOD.replace("math", "maths").replace("debug", "bug").replace("class", "klass"))
    assert (error.line, error.hint_id) == (5, "a.1")
    assert error.reason.endswith("(and 2 more in this file)")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    with pytest.raises(HintFileError) as caught:
        HintLibrary.load(missing)
    assert str(caught.value) == f"{missing}: no such file; check the path"
    assert caught.value.line is None
    with pytest.raises(HintFileError, match="a folder, not a hint file"):
        HintLibrary.load(tmp_path)
    with pytest.raises(HintFileError, match="not a usable path"):
        HintLibrary.load("a\0b")


def test_the_path_in_the_message_is_the_path_given(tmp_path: Path) -> None:
    path = tmp_path / "bad file.yaml"
    path.write_text("version: 1\n", encoding="utf-8")
    with pytest.raises(HintError) as caught:
        HintLibrary.load(path)
    assert str(caught.value) == f"{path}:1: the key `hints` is missing; add it"


def test_the_error_survives_pickling() -> None:
    error = refused(GOOD.replace("connective", "middle"))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.line, copy.hint_id) == (str(error), error.line, error.hint_id)


@given(st.binary(max_size=60), st.integers(0, len(GOOD)), st.integers(0, 20))
def test_no_damage_gets_past_or_crashes(junk: bytes, at: int, cut: int) -> None:
    raw = GOOD.encode()
    try:
        file = parse(raw[:at] + junk + raw[at + cut :], "damaged")
    except HintFileError as error:
        assert error.line is not None and 1 <= error.line <= GOOD.count("\n") + 62
        assert "\n" not in str(error)
    else:
        assert file.hints
