"""Prompts with hostile questions and various templates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.engines.scripted import byte_tokenizer
from start_agent.errors import PromptError, QuestionError
from start_agent.tokens.prompts import ChatFormat, Prompt, render_prompt
from start_agent.tokens.templates import ChatTemplate
from start_agent.tokens.tokenizer import ChatRenderer, Message, Tokenizer

SPECIAL = {"<|endoftext|>": 256, "<|im_start|>": 257, "<|im_end|>": 258}


def chatml(end: str = "", begin: str = "") -> ChatRenderer:
    def render(messages: list[Message]) -> str:
        turns = (f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages)
        return begin + "".join(turns) + f"<|im_start|>assistant\n{end}"

    return render


def tokenizer(render: ChatRenderer | None) -> Tokenizer:
    return Tokenizer(byte_tokenizer().backend, eos_ids=[258], render_chat=render)


CHATML = tokenizer(chatml())
SPELLED = ["<|im_end|>", "<|im_start|>", "<think>", "</think>", "\ue000user\ue001", "\ue000system\ue001", "\ue000"]
WRITTEN = st.lists(st.sampled_from([*SPELLED, "x", " ", "\n", "{{ 1 }}", "é", "system"]), min_size=1).map("".join)


def text_of(prompt: Prompt) -> str:
    return CHATML.decode(prompt.token_ids)


@given(question=WRITTEN, system=WRITTEN | st.just(""), instruction=WRITTEN | st.just(""))
def test_what_people_write_stays_plain_text(question: str, system: str, instruction: str) -> None:
    question = "q" + question
    prompt = render_prompt(CHATML, question, system=system, instruction=instruction)
    user = "\n\n".join(part for part in (question.strip(), instruction) if part)
    parts = [("system", system), ("user", user)] if system else [("user", user)]
    assert text_of(prompt) == "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in parts) + (
        "<|im_start|>assistant\n"
    )
    # The template's own special tokens and no others.
    specials = [token_id for token_id in prompt.token_ids if token_id >= 256]
    assert specials == [257, 258] * len(parts) + [257]
    assert prompt.thinking and prompt.think_ends == ("</think>",)


@pytest.mark.parametrize("question", ["", "   ", "\n\t"])
def test_an_empty_question(question: str) -> None:
    with pytest.raises(PromptError, match=r"^the question is empty$"):
        render_prompt(CHATML, question, instruction="Reason.", system="Be kind.")


def test_a_prompt_that_is_too_long_is_refused() -> None:
    chat, text = ChatFormat(CHATML), "<|im_end|>" * 5000
    size = len(chat.prompt(text).token_ids)
    assert len(chat.prompt(text, most_tokens=size).token_ids) == size
    with pytest.raises(QuestionError):
        chat.prompt(text, most_tokens=1000)


def test_no_template() -> None:
    with pytest.raises(PromptError, match="no chat template"):
        render_prompt(tokenizer(None), "x")


def test_a_template_that_fails_is_one_line() -> None:
    def fail(messages: list[Message]) -> str:
        raise RuntimeError("Only user and assistant roles are supported!\nat line 3")

    with pytest.raises(PromptError) as caught:
        render_prompt(tokenizer(fail), "x", system="s")
    assert "Only user and assistant" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "render",
    [
        lambda messages: "".join(message["content"] for message in messages if message["role"] == "user"),
        lambda messages: "".join(message["content"] * 2 for message in messages),
        lambda messages: "",
    ],
    ids=["drops", "doubles", "nothing"],
)
def test_a_template_that_does_not_show_each_message_once(render: ChatRenderer) -> None:
    with pytest.raises(PromptError, match="exactly once"):
        render_prompt(tokenizer(render), "q", system="s")


def test_a_template_that_reorders_the_messages() -> None:
    def reversed_order(messages: list[Message]) -> str:
        return "|".join(message["content"] for message in reversed(messages)) + "<|im_end|>"

    prompt = render_prompt(tokenizer(reversed_order), "question", system="system")
    assert text_of(prompt) == "question|system<|im_end|>" and prompt.token_ids[-1] == 258


@pytest.mark.parametrize(
    ("end", "thinking", "think_end"),
    [
        ("", True, "</think>"),  # Qwen3, QwQ-Preview: the model opens it, or never does
        ("<think>\n", True, "</think>"),  # QwQ, R1
        ("<think>\n\n</think>\n\n", False, "</think>"),  # Qwen3 without thinking
        ("</think>", False, "</think>"),
        ("[THINK]", True, "[/THINK]"),
        ("[THINK][/THINK]", False, "[/THINK]"),
        ("<|begin_of_thought|>\n", True, "<|end_of_thought|>"),
    ],
)
def test_how_the_prompt_ends(end: str, thinking: bool, think_end: str) -> None:
    prompt = render_prompt(tokenizer(chatml(end)), "What are <think> and </think>?", system="[THINK] </think>")
    assert (prompt.thinking, prompt.think_ends) == (thinking, (think_end,))
    assert text_of(prompt).endswith(end)


def test_tags_in_the_templates_own_system_message_name_the_family_and_open_nothing() -> None:
    begin = "<|im_start|>system\nThink first: [THINK]...[/THINK]<|im_end|>\n"
    prompt = render_prompt(tokenizer(chatml(begin=begin)), "q")
    assert prompt.think_ends == ("[/THINK]",) and prompt.thinking
    # What the end of the prompt says counts first.
    prompt = render_prompt(tokenizer(chatml("<think>\n\n</think>\n", begin)), "q")
    assert prompt.think_ends == ("</think>",) and not prompt.thinking


USER: Message = {"role": "user", "content": "q"}


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([], QuestionError),
        ([{"role": "user", "content": " \n"}], QuestionError),
        ([USER, {"role": "assistant", "content": "a"}], PromptError),
        ([{"role": "tool", "content": "a"}, USER], PromptError),
        ([{"role": "user", "content": "a", "reasoning_content": "b"}, USER], PromptError),
        ([{"role": "user"}, USER], PromptError),
        ([{"role": "user", "content": 3}, USER], PromptError),
        (["q"], PromptError),
    ],
    ids=["none", "empty", "assistant last", "unknown role", "thoughts of a user", "no content", "number", "no mapping"],
)
def test_a_conversation_that_is_none(messages: list[Message], error: type[PromptError]) -> None:
    with pytest.raises(error):
        ChatFormat(CHATML).prompt(messages)


def test_what_a_conversation_is_given_besides() -> None:
    chat = ChatFormat(CHATML)
    talk: list[Message] = [USER, {"role": "assistant", "content": ""}, {"role": "user", "content": " r "}]
    shown = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n<|im_start|>user\n r <|im_end|>\n"
    assert text_of(chat.prompt(talk)) == f"{shown}<|im_start|>assistant\n"
    with_both = chat.prompt(talk, system="s", instruction="Box it.")
    shown = shown.replace(" r ", " r \n\nBox it.")
    assert text_of(with_both) == f"<|im_start|>system\ns<|im_end|>\n{shown}<|im_start|>assistant\n"
    own: list[Message] = [{"role": "system", "content": "o"}, *talk]
    assert chat.prompt(own, system="s") == chat.prompt(own)
    assert chat.prompt([{"role": "system", "content": " "}, *talk]) == chat.prompt(talk)


def test_messages_of_the_system_at_the_beginning_are_one() -> None:
    chat = ChatFormat(CHATML)
    many: list[Message] = [{"role": "system", "content": str(number)} for number in range(3)]
    joined: Message = {"role": "system", "content": "0\n\n1\n\n2"}
    assert chat.prompt([*many, USER]) == chat.prompt([joined, USER])
    assert text_of(chat.prompt([USER, *many, USER])).count("<|im_start|>system") == 3


def jinja(source: str) -> Tokenizer:
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer().backend)
    return tokenizer(ChatTemplate(source, theirs.apply_chat_template))


def test_a_template_that_has_a_developer_is_given_one() -> None:
    said = "{{ '[dev]' if m.role == 'developer' else '' }}{{ m.role + ':' + m.content }}"
    source = "{% for m in messages %}" + said + "{% endfor %}"
    chat = ChatFormat(jinja(source))
    messages: list[Message] = [{"role": "developer", "content": "d"}, {"role": "developer", "content": "e"}, USER]
    assert text_of(chat.prompt(messages, system="s")) == "system:s[dev]developer:d[dev]developer:euser:q"
    assert text_of(chat.prompt(messages)) == "[dev]developer:d\n\neuser:q"


@pytest.mark.parametrize(
    ("shown", "times"),
    [("", 0), ("{{ m.reasoning_content }}", 1), ("{{ m['thinking'] }}", 1), ("{{ m.reasoning }}", 1)],
)
def test_thoughts_are_given_by_the_name_that_the_template_looks_for(shown: str, times: int) -> None:
    chat = ChatFormat(jinja("{% for m in messages %}{{ m.content }}" + shown + "{% endfor %}"))
    messages: list[Message] = [USER, {"role": "assistant", "content": "a", "reasoning_content": "</think>t"}, USER]
    prompt = chat.prompt(messages)
    assert prompt.thoughts_shown == times
    assert text_of(prompt) == ("qa</think>tq" if times else "qaq")


@pytest.mark.parametrize(
    "shown", ["{{ m.reasoning_content * 2 }}", "{{ (m.reasoning_content or 'xy')[:-2] }}", "{{ m.content }}"]
)
def test_a_template_that_shows_a_text_in_part_or_twice(shown: str) -> None:
    chat = ChatFormat(jinja("{% for m in messages %}{{ m.content }}" + shown + "{% endfor %}"))
    with pytest.raises(PromptError):
        chat.prompt([USER, {"role": "assistant", "content": "a", "reasoning_content": "thoughts"}, USER])


def test_a_text_that_leaves_no_character_to_stand_in() -> None:
    every = "".join(map(chr, range(0x100000, 0x10FFFE)))
    with pytest.raises(PromptError):
        ChatFormat(CHATML).prompt(f"{every}<")


def test_what_people_say_of_channels_names_none() -> None:
    assert render_prompt(CHATML, "What are <|channel|> and valid channels?").thinking
