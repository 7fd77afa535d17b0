"""The matcher: the result does not depend on the tokenization, and equals that of a simple reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from start_agent.tokens.markers import Block, MarkerKind, Markers, Match, Matcher, State
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import SpanKind
from tests.support import reference

FRAGMENTS = [
    *("Wait", "Alternatively", "Waiting", "wait", "await", "```", "``", "`", "python", "py", "PYTHON3", "js", "x"),
    *("</think>", "</", "think", ">", "<", "\n", "\n\n", "\r\n", " ", "   ", "    ", "\t", ",", ".", "-", "_", "7"),
    *("\n```python\n", "\n```\n", "\n```js\n", "é", "—", "print(1)", "a" * 33, " " * 9, "\n ```", "~~~", "~", "````"),
    *("\n    ```py\n", "\n    ```\n", "\n\t```", "\n- ", "\n  1. ", "\n> ```python\n", "{", "}", ":", "#", "\n~~~\n"),
    *(
        "\n```text\n",
        "x" * 240,
        " Wait, ",
        "```\n",
        '``` {.python title="a.py"}\n',
        "\n</think>",
        "3.12",
        "\n````python\n",
    ),
]
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map(lambda parts: "".join(parts).encode())


def matcher(
    pieces: Sequence[bytes] = (), markers: Markers | None = None, added: Mapping[int, str] | None = None
) -> Matcher:
    """A matcher on a made-up vocabulary."""
    return Matcher(cast(Tokenizer, SimpleNamespace(pieces=pieces, added=added or {})), markers)


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
                assert spelled.startswith((b"```", b"~~~")) and spelled.endswith(b"\n")
                assert match.word.encode() in spelled.lower()
            case MarkerKind.CODE_CLOSE:
                assert spelled.startswith(b"\n") and spelled.endswith((b"```", b"~~~"))


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
def test_nothing_but_the_end_of_thinking_fires_inside_a_block(language: str, code: bytes) -> None:
    code = code.replace(b"`", b"'").replace(b"~", b"-").replace(b">", b"<")  # so that nothing closes it
    state, found = read_in([f"\n```{language}\n".encode() + code])
    assert state.block is (Block.CODE if language == "python" else Block.OTHER)
    assert [match.kind for match in found] == ([MarkerKind.CODE_OPEN] if language == "python" else [])


@pytest.mark.parametrize(
    "line",
    [
        *("```python", "   ```Python3  \r", "and so: ```py", "````python", "~~~python", "        ```python", "\t```py"),
        *(
            "``` python",
            "```python x",
            "```python # Wait, </thin",
            '```python title="a.py" linenos=1',
            "```Python 3.12",
        ),
        *("```{python}", "``` {.python .numberLines}", "```python{1,3}", "```python:src/main.py", "```python,ignore"),
        *("```py3", "```python3.11", "- ```python", "1. ```python", "  2)   - ```python", "```python" + " " * 200),
        *("```PYTHON\t", "```python=", "**Code:** ```python", "é" * 200 + ": ```python"),
    ],
)
def test_what_opens_a_block_of_code(line: str) -> None:
    for before in ("", "Some prose.\n", "```text\nnever closed\n"):
        if before.startswith("```") and "~" in line:
            continue  # a fence of another kind closes nothing
        text = f"{before}{line}\n".encode()
        state, matches = read_in([text + b"x"])
        assert state.block is Block.CODE
        begin = text.index(b"~~~" if b"~" in text else b"```", len(before))
        assert [match[:3] for match in matches] == [(MarkerKind.CODE_OPEN, begin, len(text))]


@pytest.mark.parametrize(
    ("line", "block"),
    [
        ("```pythonic", Block.OTHER),
        ("```python-repl", Block.OTHER),
        ("```pythoné", Block.OTHER),
        ("```plain text", Block.OTHER),
        ("```" + "p" * 200, Block.OTHER),
        ("```c++ title=python", Block.OTHER),
        ("~~~", Block.OTHER),
        ("- ```", Block.OTHER),
        ("``python", Block.PROSE),
        ("```pythonic" + " " * 300, Block.PROSE),
        ("```python x" + " " * 300, Block.PROSE),
        ("```python```", Block.PROSE),
        ("```print(1)``` prints 1", Block.PROSE),
        ("and so: ```python title", Block.PROSE),
        ("and so: ```js", Block.PROSE),
        ("and so: ~~~python", Block.PROSE),
        ("> ```python", Block.PROSE),
        ("  > and so: ```python", Block.PROSE),
    ],
)
def test_what_opens_none(line: str, block: Block) -> None:
    for before in ("", "Some prose.\n"):
        state, matches = read_in([f"{before}{line}\nx".encode()])
        assert state.block is block
        assert matches == []


@pytest.mark.parametrize(
    ("opened", "line"),
    [
        *(
            ("```python", line)
            for line in ("```", "   ```", "``````", "```python", "``` It prints 1.", "```x", "  ```\r")
        ),
        *(("    ```python", line) for line in ("```", "    ```", "       ```", "\t```", " \t   ```")),
        *(("\t```python", line) for line in ("\t```", "    ```", "\t   ```")),
        *(("- ```python", line) for line in ("```", "  ```", "     ```")),
        *(("10. So: ```python", line) for line in ("```", "    ```", "       ```")),
        *(("````python", line) for line in ("````", "`````")),
        *(("~~~python", line) for line in ("~~~", "   ~~~~")),
    ],
)
def test_what_closes_a_block(opened: str, line: str) -> None:
    run = next(run for run in ("````", "```", "~~~") if run in opened)
    for code in ("x = 1\n", "", "# Wait, ~~ ``\n\n"):
        before = f"Look:\n{opened}\n{code}".encode()
        _, matches = read_in([before + line.encode()])
        closing = (MarkerKind.CODE_CLOSE, len(before) - 1, len(before) + line.index(run) + len(run))
        assert [match.kind for match in matches] == [MarkerKind.CODE_OPEN, MarkerKind.CODE_CLOSE]
        assert matches[1][:3] == closing
        # ... at once: nothing has to come after it.
        assert read_in([(before + line.encode())[: closing[2]]])[1] == matches


@pytest.mark.parametrize(
    ("opened", "line"),
    [
        *(("```python", line) for line in ("    ```", "x```", "``", "\t```", "`` `", "~~~", "> ```", "- ```")),
        *(("    ```python", line) for line in ("        ```", "\t\t```")),
        *(("````python", line) for line in ("```", "```python", "~~~~")),
        *(("~~~python", line) for line in ("```", "~~")),
    ],
)
def test_what_does_not_close_a_block(opened: str, line: str) -> None:
    state, matches = read_in([f"{opened}\nx = 1\n{line}\n".encode()])
    assert state.block is Block.CODE and len(matches) == 1


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("```text\nx\n```\n", Block.PROSE),
        ("```text\nx\n``` Wait, what\n", Block.PROSE),
        ("```text\nx\n```js\n", Block.OTHER),
        ("```text\nx\n    ```\n", Block.OTHER),
        ("````md\n```python\nx\n```\n", Block.OTHER),  # a longer fence quotes
        ("````md\n```python\nx\n```\n````\n", Block.PROSE),
        ("~~~\n```python\n~~~\n", Block.PROSE),
        ("```text\nx\n```python\ny\n", Block.CODE),
        ("```text\nx\n1. So:\n    ``` python\n    y\n", Block.CODE),
        ("```text\nx\n```python\ny\n```\n", Block.PROSE),
    ],
)
def test_blocks_that_are_not_run(text: str, block: Block) -> None:
    assert read_in([text.encode()])[0].block is block


@pytest.mark.parametrize(
    "opened",
    ["", "```python\nx = 1\n", "```text\nabc\n", "- a\n    ~~~\n", "````python\n```\n", "```python\nx = 1```\n"],
)
def test_the_end_of_thinking_closes_any_block(opened: str) -> None:
    for before in ("", "  ", "\t", "x = 2```", "~~~ "):
        text = f"{opened}{before}</think>\n```python\n1\n```\nWait, </think>\n".encode()
        state, matches = read_in([text])
        at = text.index(b"</think>")
        assert matches[-1] == Match(MarkerKind.THINK_END, at, at + 8, "")
        assert state == State(answering=True, position=len(text))


@pytest.mark.parametrize("line", ["print('</think>')", "x = 1  # </think>", '"""a </think>"""', "x</think>"])
def test_the_end_of_thinking_spelled_in_code_is_text(line: str) -> None:
    text = f"```python\n{line}\n```\n</think>".encode()
    kinds = [match.kind for match in read_in([text])[1]]
    assert kinds == [MarkerKind.CODE_OPEN, MarkerKind.CODE_CLOSE, MarkerKind.THINK_END]
    assert read_in([text])[1][-1].end == len(text)


@given(text=TEXTS, block=st.sampled_from(["", "```python\nx = 1\n", "```text\nabc", "~~~\n"]))
def test_where_the_end_of_thinking_is_a_token_no_text_ends_it_inside_a_block(text: bytes, block: str) -> None:
    using = matcher([b"</think>", b"<|message|>"], added={0: "</think>", 1: "<|message|>"})
    text = block.encode() + text
    state, found = read_in([text], using)
    ends = [match for match in found if match.kind is MarkerKind.THINK_END]
    assert not ends or read_in([text[: ends[0].begin]], using)[0].block is Block.PROSE  # spelled out, in prose
    after, more = using.step(state, 0)
    assert after.answering
    assert ends or more[-1] == Match(MarkerKind.THINK_END, len(text), len(text) + 8, "")


def test_an_end_of_thinking_of_several_tokens() -> None:
    """As in gpt-oss: the analysis channel's message ends, and the final channel's begins."""
    names = ["<|end|>", "<|start|>", "<|channel|>", "<|message|>"]
    ends = ("<|end|><|start|>assistant<|channel|>final<|message|>", "<|channel|>final<|message|>")
    pieces = [*(name.encode() for name in names), b"assistant", b"final", b"analysis", b"\n```python\n", b"x"]
    using = matcher(pieces, Markers(think_ends=ends), dict(enumerate(names)))
    another_message = [2, 6, 3, 8, 0, 1, 4, 2, 6, 3, 8]
    for before in ([2, 6, 3, 8], [2, 6, 3, 7, 8], another_message):
        for ending in ([0, 1, 4, 2, 5, 3], [2, 5, 3]):
            state, matches = State(), list[Match]()
            for token_id in [*before, *ending, 7, 8]:
                state, found = using.step(state, token_id)
                matches += found
            begin = sum(len(pieces[token_id]) for token_id in before)
            end = begin + sum(len(pieces[token_id]) for token_id in ending)
            assert matches[-1] == Match(MarkerKind.THINK_END, begin, end, "") and state.answering
    # Spelled out in code it is text.
    state, _ = read_in([b"```python\nx = '" + ends[0].encode()], using)
    assert not state.answering and state.block is Block.CODE


@given(text=TEXTS)
def test_a_state_is_small_and_goes_through_messages(text: bytes) -> None:
    msgspec = pytest.importorskip("msgspec")  # vLLM's
    state, _ = read_in([text * 9])
    assert len(state.line) + len(state.tail) < 320
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=State) == state


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


VOCABULARY = matcher([fragment.encode() for fragment in FRAGMENTS])


@given(ids=st.lists(st.integers(0, len(FRAGMENTS)), max_size=40))
def test_steps_over_tokens_find_what_reading_their_bytes_finds(ids: list[int]) -> None:
    stepped = read = State()
    for token_id in ids:
        stepped, found = VOCABULARY.step(stepped, token_id)
        read, expected = VOCABULARY.read(read, FRAGMENTS[token_id].encode() if token_id < len(FRAGMENTS) else b"")
        assert (stepped, found) == (read, expected)


@given(before=TEXTS, hint=TEXTS, after=TEXTS)
def test_no_marker_spans_the_seam_of_an_insertion(before: bytes, hint: bytes, after: bytes) -> None:
    before, hint = before + b"Wa", b"it, </thi" + hint + b"\n<"
    state, _ = read_in([before])
    joined, found = PLAIN.inserted(state, hint, SpanKind.HINT)
    assert joined.position == len(before) + len(hint)
    assert all(match.begin >= len(before) for match in found)
    _, later = PLAIN.read(joined, b"/think>" + after)
    # The hint's last line break is gone from sight, its last byte is not to be used.
    assert all(match.begin >= joined.position for match in later)


def test_a_hint_may_open_a_block_and_a_tools_output_may_not() -> None:
    text = b"Let me compute.\n```python\n"
    opened, found = PLAIN.inserted(State(), text, SpanKind.HINT)
    assert opened.block is Block.CODE and [match.kind for match in found] == [MarkerKind.CODE_OPEN]
    # The line break that ends it may begin the closing fence of what the model writes.
    assert [match.kind for match in PLAIN.read(opened, b"```\n")[1]] == [MarkerKind.CODE_CLOSE]
    after, found = PLAIN.inserted(opened, b"```output\n" + text, SpanKind.TOOL_OUTPUT)
    assert after.block is Block.PROSE and found == ()
    # ... and one after it, the opening one.
    assert [match.kind for match in PLAIN.read(after, b"```py\n")[1]] == [MarkerKind.CODE_OPEN]


def test_an_empty_insertion_keeps_the_line() -> None:
    for text in (b"x", b"x\n"):
        state, _ = read_in([text])
        after, _ = PLAIN.inserted(state, b"", SpanKind.TOOL_OUTPUT)
        block = PLAIN.read(after, b"```js\n")[0].block
        assert block is (Block.OTHER if text.endswith(b"\n") else Block.PROSE)
