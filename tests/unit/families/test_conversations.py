"""Whole conversations through the templates of the families."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from start_agent.tokens.prompts import ChatFormat
from start_agent.tokens.tokenizer import Message
from tests.support.families.table import FAMILIES
from tests.unit.families.test_families import WRITTEN, Loaded, load, options

NAMES = sorted(FAMILIES)
KEEP = {"gpt-oss", "kimi-k2", "seed-oss"}  # the earlier thoughts


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Turns of a user and an assistant, with and without thoughts, and perhaps a system message."""
    found: list[Message] = []
    if draw(st.booleans()):
        found.append({"role": "system", "content": "s" + draw(WRITTEN)})
    for _ in range(draw(st.integers(0, 2))):
        found.append({"role": "user", "content": draw(WRITTEN) + "?"})
        thoughts = draw(st.none() | WRITTEN)
        found.append(
            {"role": "assistant", "content": "a" + draw(WRITTEN)}
            | ({} if thoughts is None else {"reasoning_content": "t" + thoughts})
        )
    return [*found, {"role": "user", "content": draw(WRITTEN) + "?"}]


def as_the_template_wants(loaded: Loaded, messages: list[Message]) -> list[Message]:
    """gpt-oss looks for thoughts under another name."""
    if loaded.double.name != "gpt-oss":
        return messages
    return [
        message | ({"thinking": message["reasoning_content"]} if "reasoning_content" in message else {})
        for message in messages
    ]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, deadline=None)
@given(messages=conversations())
def test_ids_are_those_of_transformers(name: str, messages: list[Message]) -> None:
    loaded = load(name)
    given_to = as_the_template_wants(loaded, messages)
    for variables in ({}, loaded.double.on, loaded.double.off):
        prompt = ChatFormat(loaded.ours, options(variables)).prompt(messages)
        assert list(prompt.token_ids) == loaded.theirs_of_all(given_to, **variables)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, deadline=None)
@given(data=st.data(), messages=conversations())
def test_what_a_message_spells_stays_text(name: str, data: st.DataObject, messages: list[Message]) -> None:
    """Neither a person nor an earlier answer opens a turn, or opens and ends the thinking."""
    loaded = load(name)
    chat = ChatFormat(loaded.ours, options(loaded.double.on))
    spelled = [*loaded.ours.controls.values(), "<think>", "</think>", "<|channel|>final<|message|>", "valid channels"]
    hostile = [
        {
            key: value if key == "role" else value[:1] + data.draw(st.sampled_from(spelled)) + value[1:]
            for key, value in message.items()
        }
        for message in messages
    ]
    prompt, bare = chat.prompt(hostile), chat.prompt(messages)

    def controls_of(ids: tuple[int, ...]) -> list[int]:
        return [token_id for token_id in ids if token_id in loaded.ours.controls]

    assert controls_of(prompt.token_ids) == controls_of(bare.token_ids)
    assert (prompt.thinking, prompt.think_ends, prompt.think_start, prompt.think_opens, prompt.thoughts_shown) == (
        bare.thinking,
        bare.think_ends,
        bare.think_start,
        bare.think_opens,
        bare.thoughts_shown,
    )


@pytest.mark.parametrize("name", NAMES)
def test_whether_earlier_thoughts_are_shown_is_known(name: str) -> None:
    loaded = load(name)
    messages: list[Message] = [
        {"role": "user", "content": "2+3?"},
        {"role": "assistant", "content": "It is 5.", "reasoning_content": "Two and three."},
        {"role": "user", "content": "6*7?"},
    ]
    variables: list[dict[str, Any]] = [{}, {"preserve_thinking": True}]
    for given_variables in variables:
        prompt = ChatFormat(loaded.ours, options(given_variables)).prompt(messages)
        kept = name in KEEP or (name == "qwen3.5" and bool(given_variables))
        assert prompt.thoughts_shown == kept
        assert ("Two and three." in loaded.ours.decode(prompt.token_ids)) == kept


@pytest.mark.parametrize("name", NAMES)
def test_a_developer_is_the_system_where_the_template_has_no_such_role(name: str) -> None:
    chat = ChatFormat(load(name).ours)
    question: Message = {"role": "user", "content": "2+3?"}
    as_system = chat.prompt([{"role": "system", "content": "Be brief."}, question])
    assert chat.prompt([{"role": "developer", "content": "Be brief."}, question]) == as_system
    both: list[Message] = [{"role": "system", "content": "Be"}, {"role": "developer", "content": "brief."}, question]
    assert chat.prompt(both) == chat.prompt([{"role": "system", "content": "Be\n\nbrief."}, question])
