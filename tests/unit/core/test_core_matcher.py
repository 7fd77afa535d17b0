"""The matcher: how the text is cut makes no difference, and a simple reference finds the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from start_agent.markers import Block, MarkerKind, Markers, Match, Matcher, State
from start_agent.tokenizer import Tokenizer
from tests.support import reference

FRAGMENTS = [
    *("Wait", "Alternatively", "Waiting", "wait", "await", "```", "``", "`", "python", "py", "PYTHON3", "js", "x"),
    *("</think>", "</", "think", ">", "<", "\n", "\n\n", "\r\n", " ", "   ", "    ", "\t", ",", ".", "-", "_", "7"),
    *("\n```python\n", "\n```\n", "\n```js\n", "é", "—", "print(1)", "a" * 33, " " * 9, "\n ```"),
]
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=24).map(lambda parts: "".join(parts).encode())


def matcher(pieces: Sequence[bytes] = (), markers: Markers | None = None) -> Matcher:
    """A matcher on a made-up vocabulary."""
    return Matcher(cast(Tokenizer, SimpleNamespace(pieces=pieces)), markers)


PLAIN = matcher()


def read_in(parts: Sequence[bytes], using: Matcher = PLAIN) -> tuple[State, list[Match]]:
    state, matches = State(), list[Match]()
    for part in parts:
        state, found = using.read(state, part)
        matches += found
    return state, matches


def cut(text: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[begin:end] for begin, end in pairwise(edges)]


@settings(max_examples=600)
@given(text=TEXTS, places=st.lists(st.integers(0, 400), max_size=8))
@example(text=b"```x-Wait.\nWait ", places=[9])  # a connective in a fence's line ...
@example(text=b"```x-Wait. and\nWait ", places=[10])  # ... even of a line that opens nothing
@example(text=b"\n```js\nx\n```Wait, so", places=[11])  # the backtick before it is read in another token
@example(text=b"`Wait` ```x-Wait-" + b"y" * 120, places=[])  # what is decided stays so, however far back its reason
@example(text=b"\n```python" + b" " * 60 + b"\nx", places=[])
@example(text=b"\n```python" + b" " * 8 + b"\r\nx", places=[])
def test_the_way_the_text_is_cut_makes_no_difference(text: bytes, places: list[int]) -> None:
    whole = read_in([text])
    assert read_in([text[i : i + 1] for i in range(len(text))]) == whole
    assert read_in(cut(text, places)) == whole


@settings(max_examples=600)
@given(text=TEXTS)
def test_it_agrees_with_the_reference(text: bytes) -> None:
    state, matches = read_in([text])
    expected = reference.read(text)
    assert matches == expected.matches
    assert (state.block, state.answering, state.position) == (expected.block, expected.answering, len(text))


@given(text=TEXTS)
def test_offsets_point_at_the_markers_bytes(text: bytes) -> None:
    for match in read_in([text])[1]:
        spelled = text[match.begin : match.end]
        match match.kind:
            case MarkerKind.CONNECTIVE:
                assert spelled == match.word.encode()
            case MarkerKind.THINK_END:
                assert spelled == b"</think>"
            case MarkerKind.CODE_OPEN:
                assert spelled.startswith(b"```") and spelled.endswith(b"\n")
                assert spelled[3:].strip().lower() == match.word.encode()
            case MarkerKind.CODE_CLOSE:
                assert spelled.startswith(b"\n") and spelled.endswith(b"```")


@given(
    texts=st.lists(TEXTS, min_size=1, max_size=6),
    words=st.lists(
        st.sampled_from(["But wait, no", "wait", "Wait", "Wait, but", "Hmm,", " Hmm", "So\n", "Wait-x", ""]), max_size=5
    ),
)
@example(texts=[b"But wait, no, So\n```python\nwait\n"], words=["But wait, no", "wait", "So\n"])
def test_nor_does_it_with_other_connectives(texts: list[bytes], words: list[str]) -> None:
    using = matcher(markers=Markers(connectives=tuple(words)))
    text = b" But wait, no, Hmm, So\n".join(texts)
    assert read_in([text[i : i + 1] for i in range(len(text))], using) == read_in([text], using)


@given(text=TEXTS, word=st.sampled_from(["Wait", "Alternatively"]), neighbour=st.sampled_from(["a", "Z", "0", "_"]))
def test_connectives_never_fire_within_words(text: bytes, word: str, neighbour: str) -> None:
    for inside in (f" {neighbour}{word} ", f" {word}{neighbour} ", f" `{word}` ", f" {word.lower()} "):
        before, plain = read_in([text, b"\n.\n"])
        _, found = PLAIN.read(before, inside.encode())
        assert not [match for match in found if match.kind is MarkerKind.CONNECTIVE], plain


@pytest.mark.parametrize("language", ["python", "js", ""])
@given(code=TEXTS)
def test_nothing_fires_inside_a_block(language: str, code: bytes) -> None:
    code = code.replace(b"```", b"``")  # so that nothing closes it
    state, found = read_in([f"\n```{language}\n".encode() + code])
    if b"```" not in code:
        assert state.block is (Block.CODE if language == "python" else Block.OTHER)
        assert [match.kind for match in found] == ([MarkerKind.CODE_OPEN] if language == "python" else [])


@pytest.mark.parametrize(
    ("line", "opens"),
    [
        ("```python", True),
        ("   ```Python3  \r", True),
        ("and so: ```py", True),
        ("`" * 4 + "python", True),
        ("```python x", False),
        ("```pythonic", False),
        ("``python", False),
        ("```" + "p" * 33, False),
        ("```python" + " " * 9, False),
        ("``` python", False),
    ],
)
def test_what_opens_a_block(line: str, opens: bool) -> None:
    for before in ("", "Some prose.\n"):
        state, matches = read_in([f"{before}{line}\nx".encode()])
        assert (state.block is Block.CODE) is opens
        assert [match.kind for match in matches] == [MarkerKind.CODE_OPEN] * opens


@pytest.mark.parametrize("line", ["\n```", "\n   ```\n", "\n``````", "\n```python\n", "\n```\r\n", "\n\n```x"])
def test_what_closes_a_block(line: str) -> None:
    state, matches = read_in([b"\n```python\nx = 1" + line.encode()])
    closing = matches[1]
    assert (closing.kind, closing.end) == (MarkerKind.CODE_CLOSE, len("\n```python\nx = 1") + line.index("```") + 3)
    assert state.position == len("\n```python\nx = 1") + len(line)


@pytest.mark.parametrize("line", ["\n    ```\n", "\nx```\n", "\n``\n", "\n\t```\n", "```\n", "\n`` `\n"])
def test_what_does_not_close_a_block(line: str) -> None:
    state, matches = read_in([b"\n```python\nx = 1" + line.encode()])
    assert state.block is Block.CODE and len(matches) == 1


def test_an_empty_block_opens_and_closes() -> None:
    assert [match[:3] for match in read_in([b"```python\n```\n"])[1]] == [
        (MarkerKind.CODE_OPEN, 0, 10),
        (MarkerKind.CODE_CLOSE, 9, 13),
    ]


def test_a_step_reads_the_bytes_of_a_token_and_padding_has_none() -> None:
    using = matcher([b"Wa", b"it", b", "])
    state = State()
    for token_id in (0, 1, 99):
        state, found = using.step(state, token_id)
        assert found == ()
    assert state.position == 4
    assert using.step(state, 2)[1] == (Match(MarkerKind.CONNECTIVE, 0, 4, "Wait"),)


@given(before=TEXTS, hint=TEXTS, after=TEXTS)
def test_no_marker_spans_the_seam_of_an_insertion(before: bytes, hint: bytes, after: bytes) -> None:
    before, hint = before + b"Wa", b"it, </thi" + hint + b"\n<"
    state, _ = read_in([before])
    joined, found = PLAIN.inserted(state, hint, may_open=True)
    assert joined.position == len(before) + len(hint)
    assert all(match.begin >= len(before) for match in found)
    _, later = PLAIN.read(joined, b"/think>" + after)
    # The hint's last line break is gone from sight, its last byte is not to be used.
    assert all(match.begin >= joined.position for match in later)


def test_a_hint_may_open_a_block_and_a_tools_output_may_not() -> None:
    text = b"Let me compute.\n```python\n"
    opened, found = PLAIN.inserted(State(), text, may_open=True)
    assert opened.block is Block.CODE and [match.kind for match in found] == [MarkerKind.CODE_OPEN]
    # The line break that ends it may begin the closing fence of what the model writes.
    assert [match.kind for match in PLAIN.read(opened, b"```\n")[1]] == [MarkerKind.CODE_CLOSE]
    after, found = PLAIN.inserted(State(answering=True), b"```output\n" + text, may_open=False)
    assert after.block is Block.PROSE and after.answering and found == ()
    # ... and one after it, the opening one.
    assert [match.kind for match in PLAIN.read(after, b"```py\n")[1]] == [MarkerKind.CODE_OPEN]


def test_an_empty_insertion_keeps_the_line() -> None:
    for text in (b"x", b"x\n"):
        state, _ = read_in([text])
        after, _ = PLAIN.inserted(state, b"", may_open=False)
        block = PLAIN.read(after, b"```js\n")[0].block
        assert block is (Block.OTHER if text.endswith(b"\n") else Block.PROSE)
