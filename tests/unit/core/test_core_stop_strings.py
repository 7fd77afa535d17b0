"""Stop strings: found however the text is split; a possible beginning of one is known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from start_agent.tokens.stop_strings import StopStrings, before_stop

STRINGS = st.lists(st.text("abé", min_size=1, max_size=4), max_size=4)


@given(strings=STRINGS, pieces=st.lists(st.text("abé", max_size=3).map(str.encode), max_size=8))
def test_the_first_one_is_found_however_the_text_is_cut(strings: list[str], pieces: list[bytes]) -> None:
    finder = StopStrings(strings)
    wanted = [string.encode() for string in strings]
    text = b""
    for piece in pieces:
        text += piece
        found = finder.read(piece)
        complete = [text.index(string) for string in wanted if string in text]
        assert found == (len(text) - min(complete) if complete else None)
        if found is not None:
            assert before_stop(text, strings) == text[: len(text) - found]
            return
        longest = max((n for string in wanted for n in range(len(string)) if text.endswith(string[:n])), default=0)
        assert finder.begun == longest
    assert before_stop(text, strings) == text


def test_a_text_starts_over() -> None:
    finder = StopStrings(["ab"])
    assert finder.read(b"a") is None and finder.begun == 1
    finder.clear()
    assert finder.read(b"b") is None and finder.begun == 0
    assert not StopStrings([]) and StopStrings([]).read(b"a") is None
