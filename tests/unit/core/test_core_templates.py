"""Options of the chat template: variables, a file, the date; and the notice about thinking that is off."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from start_agent.errors import ConfigError, PromptError
from start_agent.fields import build, changed, command_words
from start_agent.tokens.prompts import ChatFormat, render_prompt
from start_agent.tokens.templates import ChatOptions, ChatTemplate
from start_agent.tokens.tokenizer import Tokenizer
from tests.support.families.table import FAMILIES, save


@pytest.fixture(scope="module")
def granite(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A template that prints the day and has its thinking off."""
    folder = tmp_path_factory.mktemp("granite")
    save(FAMILIES["granite"], folder)
    return Tokenizer.from_pretrained(str(folder))


def text(tokenizer: Tokenizer, **given: object) -> str:
    return tokenizer.decode(render_prompt(tokenizer, "q", options=build(ChatOptions, given)).token_ids)


def test_variables_come_from_json_or_a_mapping(granite: Tokenizer) -> None:
    from_json = text(granite, chat_template_kwargs='{"thinking": true}')
    assert from_json == text(granite, chat_template_kwargs={"thinking": True}) != text(granite)
    assert "<think></think>" in from_json
    options = ChatOptions(chat_template_kwargs={"thinking": True, "words": ["a"]})
    given = command_words(changed(options))
    assert build(ChatOptions, {"chat_template_kwargs": given[1]}) == options


@pytest.mark.parametrize("wrong", ["", "[1]", "true", "{'thinking': true}", "{", 3])
def test_variables_that_are_no_object(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"^--chat-template-kwargs: [^\n]*$"):
        build(ChatOptions, {"chat_template_kwargs": wrong})


@pytest.mark.parametrize("name", ["messages", "tokenize", "add_generation_prompt", "strftime_now", "chat_template"])
def test_variables_that_are_ours(granite: Tokenizer, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        ChatFormat(granite, ChatOptions(chat_template_kwargs={name: 1}))


def test_the_day_is_pinned(granite: Tokenizer) -> None:
    assert "March 09, 2031" in text(granite, chat_template_date="2031-03-09")
    assert date.today().strftime("%B") in text(granite)
    chat = [ChatFormat(granite, ChatOptions(chat_template_date=date(2031, 3, day))) for day in (9, 9, 10)]
    assert chat[0].prints_day
    assert chat[0].digest() == chat[1].digest() != chat[2].digest()


def test_a_file_takes_the_place_of_the_models_own(granite: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "template.jinja"
    path.write_text("{{ word }}: {{ messages[-1].content }}<|end_of_text|><think>", encoding="utf-8")
    given = {"chat_template": path, "chat_template_kwargs": {"word": "ask"}}
    assert text(granite, **given) == "ask: q<|end_of_text|><think>"
    assert not ChatFormat(granite, build(ChatOptions, given)).prints_day
    path.write_text("{{ nothing }", encoding="utf-8")
    with pytest.raises(PromptError, match="fails on this question"):
        text(granite, **given)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        text(granite, **given)
    with pytest.raises(ConfigError, match=r"cannot read the chat template"):
        text(granite, chat_template=tmp_path / "none")


def test_a_model_without_a_template_takes_a_file(tmp_path: Path) -> None:
    double = FAMILIES["qwq"]
    theirs = save(double, tmp_path)
    theirs.chat_template = None
    (tmp_path / "chat_template.jinja").unlink()
    theirs.save_pretrained(tmp_path)
    tokenizer = Tokenizer.from_pretrained(str(tmp_path))
    with pytest.raises(PromptError, match="no chat template"):
        render_prompt(tokenizer, "q")
    path = tmp_path / "mine.jinja"
    path.write_text(double.template, encoding="utf-8")
    assert text(tokenizer, chat_template=path).endswith("<think>\n")


def test_options_need_a_jinja_template() -> None:
    from start_agent.engines.scripted import byte_tokenizer

    with pytest.raises(ConfigError, match="Jinja"):
        ChatFormat(byte_tokenizer(), ChatOptions(chat_template_kwargs={"thinking": True}))


def test_names_in_a_template_are_whole_words() -> None:
    template = ChatTemplate("{% if enable_thinking %}{{ rethinking }}{% endif %}", print)
    assert template.uses("enable_thinking") and not template.uses("thinking")


def test_the_users_markers_come_first(granite: Tokenizer, tmp_path: Path) -> None:
    prompt = render_prompt(granite, "q", options=ChatOptions(think_end="\n## Answer"))
    assert (prompt.think_ends, prompt.think_start) == (("\n## Answer",), "")
    path = tmp_path / "families.yaml"
    path.write_text('- {name: mine, start: "<think>", ends: ["<done>", "</think>"]}\n', encoding="utf-8")
    assert render_prompt(granite, "q", options=ChatOptions(think_markers=path)).think_ends == ("<done>", "</think>")
    for wrong in (
        "- {name: mine}",
        "mine",
        "- {name: x, start: a, ends: []}",
        "{",
        "- {name: x, start: a, ends: [b], c: 1}",
    ):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            ChatFormat(granite, ChatOptions(think_markers=path))
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
