"""Traces as HTML: the content, and that no text of a trace becomes markup."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from start_agent.engines.scripted import byte_tokenizer
from start_agent.render import trace_html
from start_agent.trace import Span, SpanKind, Trace, TraceOutcome

TOKENIZER = byte_tokenizer()

HOSTILE = [
    "</pre></span></div><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x="',
    "'><svg/onload=alert(1)>",
    "<!-- --><style>*{display:none}</style>",
    "&lt;b&gt; &amp; &#60;script&#62;",
    "<|im_end|><|im_start|>user",
]


class Page(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, list[str]] = {}
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def a_trace(*spans: tuple[SpanKind, str, str], answer: str | None = "4") -> Trace:
    made = [Span(kind, tuple(TOKENIZER.encode(text)), cause) for kind, text, cause in spans]
    return Trace(made, TraceOutcome.ANSWERED, answer)


def test_who_wrote_what_is_shown() -> None:
    trace = a_trace(
        (SpanKind.PROMPT, "What is 2 + 2?", ""),
        (SpanKind.MODEL, "5. Wait", "connective"),
        (SpanKind.HINT, ", maybe Python\n```python\n", "math.1"),
        (SpanKind.MODEL, "print(2+2)\n```", "code_close"),
        (SpanKind.TOOL_OUTPUT, "```output\n4\n```\n", "ok"),
        (SpanKind.MODEL, "It is 4.", "eos"),
    )
    page = Page(trace_html(trace, TOKENIZER.decode))
    assert "".join(page.texts).endswith("".join(TOKENIZER.decode(span.token_ids) for span in trace.spans[1:]))
    assert "hint (math.1), 25 tokens" in page.attributes["title"]
    assert "answer 4 · answered · 1 tool calls · 1 hints" in "".join(page.texts)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    trace = a_trace(*((kind, text, text) for kind in SpanKind), answer=text)
    page = Page(trace_html(trace, TOKENIZER.decode))
    assert set(page.tags) <= {"b", "details", "div", "pre", "span", "summary"}
    assert set(page.attributes) == {"style", "title"}
    assert "".join(page.texts).count(text) == len(SpanKind) + 1
    assert all(text in title for title in page.attributes["title"])


@pytest.mark.parametrize("char", ["\x00", "\x08", "\x1b", "\r", "\x7f", "\x9b", "\u202e", "\u2066", "\ud800"])
def test_characters_that_hide_or_reorder_text_are_spelled_out(char: str) -> None:
    page = trace_html(a_trace((SpanKind.MODEL, "x", ""), answer=f"a{char}b"), TOKENIZER.decode)
    assert char not in page
    assert f"a\\u{ord(char):04x}b" in page


def test_a_trace_that_grows_is_shown() -> None:
    page = Page(trace_html(Trace(), TOKENIZER.decode))
    assert "no answer · not finished" in "".join(page.texts)


def test_a_notebook_shows_a_trace_whose_text_is_known() -> None:
    made = a_trace((SpanKind.MODEL, "<b>x", "eos"))
    stored = made.to_json(TOKENIZER.decode)
    assert Trace.from_json(stored)._repr_html_() == trace_html(made, TOKENIZER.decode)
    made.decode = TOKENIZER.decode
    assert made._repr_html_() == trace_html(made)
    assert Trace.from_json(made.to_json())._repr_html_() is None
    with pytest.raises(ValueError):
        trace_html(Trace.from_json(made.to_json()))
