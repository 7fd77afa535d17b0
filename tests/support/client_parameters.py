"""A table of the server's treatment of every parameter of ``openai``'s client, to be tested with the client itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from openai import NotFoundError, OpenAI

JSON = dict[str, Any]
Check = Callable[["Answer"], bool]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        body: with the parameter.
        plain: without it.
        value: of the parameter.
        client: that has asked.
    """

    body: JSON
    plain: JSON
    value: Any
    client: OpenAI


@dataclass(frozen=True, slots=True)
class Parameter:
    """What becomes of a parameter. Values may be functions of the client.

    Attributes:
        effects: values, each with what shows that it counts.
        neutral: values that are accepted, since they ask for nothing.
        refused: values that are an error which names the parameter.
    """

    effects: tuple[tuple[Any, Check], ...] = ()
    neutral: tuple[Any, ...] = ()
    refused: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Method:
    """A method of the client.

    Attributes:
        base: the arguments without which it cannot be called; values may be functions of the client.
        parameters: what becomes of each of the others.
        streams: whether it can be streamed.
    """

    base: Mapping[str, Any]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    streams: bool = False


def same(name: str) -> Check:
    """The answer repeats the value."""
    return lambda answer: bool(answer.body[name] == answer.value)


def differs(answer: Answer) -> bool:
    """The answer is another one."""
    return answer.body != answer.plain


def _items(kind: str) -> Callable[[Answer], list[JSON]]:
    return lambda answer: [item for item in answer.body["output"] if item["type"] == kind]


_cells = _items("code_interpreter_call")


def _texts(answer: Answer) -> list[JSON]:
    return [part for item in _items("message")(answer) for part in item["content"]]


def _input_tokens(answer: Answer) -> int:
    return int(answer.body["usage"]["input_tokens"] - answer.plain["usage"]["input_tokens"])


def _gone(answer: Answer) -> bool:
    try:
        answer.client.responses.retrieve(answer.body["id"])
    except NotFoundError:
        return True
    return False


def _choices(answer: Answer) -> list[JSON]:
    return list(answer.body["choices"])


def unset(refused: Any) -> Parameter:
    """One that may be null alone."""
    return Parameter(neutral=(None,), refused=(refused,))


_SAID = Parameter(effects=(("me", lambda answer: True),), refused=(7,))
"""Said about the request: taken, with nothing to be done."""
_FUNCTION: JSON = {"type": "function", "name": "f", "parameters": {}, "strict": True}
_PAIRS: JSON = {"a": "b"}
_MODEL = {"model": "scripted"}
_FORMAT: JSON = {"type": "json_schema", "name": "x", "schema": {}}

RESPONSES: Method = Method(
    _MODEL | {"input": "What is 6*7?"},
    {
        "access_programs": unset([{"type": "x"}]),
        "background": Parameter(neutral=(False,), refused=(True,)),
        "background_options": unset({"x": 1}),
        "context_management": Parameter(neutral=([],), refused=([{"type": "compaction"}],)),
        "conversation": Parameter(
            effects=((lambda c: c.conversations.create().id, lambda a: a.body["conversation"] == {"id": a.value}),),
            refused=("conv_0",),
        ),
        "image": unset({"x": 1}),
        "include": Parameter(
            effects=((["message.output_text.logprobs"], lambda a: all(part["logprobs"] for part in _texts(a))),),
            neutral=(["code_interpreter_call.outputs", "reasoning.encrypted_content"],),
            refused=(["web_search_call.results"],),
        ),
        "input": Parameter(
            effects=(([{"role": "user", "content": "What is 6 times 7?"}], lambda a: _input_tokens(a) > 0),),
            refused=([{"type": "item_reference", "id": "msg_1"}], [{"role": "tool", "content": "x"}]),
        ),
        "instructions": Parameter(effects=(("Be brief.", lambda a: _input_tokens(a) > 0),), refused=(7,)),
        "max_output_tokens": Parameter(
            effects=((5, lambda a: a.body["status"] == "incomplete" and a.body["usage"]["output_tokens"] == 5),),
            refused=(0,),
        ),
        "max_tool_calls": Parameter(
            effects=((0, lambda a: [cell["status"] for cell in _cells(a)] == ["incomplete"]),), refused=(-1,)
        ),
        "metadata": Parameter(effects=((_PAIRS, same("metadata")),), refused=({"a": 1},)),
        "model": Parameter(refused=("other",)),
        "moderation": unset({"model": "x"}),
        "parallel_tool_calls": Parameter(effects=((True, same("parallel_tool_calls")),), refused=("yes",)),
        "previous_response_id": Parameter(
            effects=(
                (
                    lambda c: c.responses.create(**RESPONSES.base).id,
                    lambda a: a.body["previous_response_id"] == a.value and _input_tokens(a) > 0,
                ),
            ),
            refused=("resp_0",),
        ),
        "prompt": unset({"id": "pmpt_1"}),
        "prompt_cache_key": Parameter(effects=(("me", same("prompt_cache_key")),), refused=(7,)),
        "prompt_cache_options": unset({"mode": "x"}),
        "prompt_cache_retention": unset("24h"),
        "reasoning": Parameter(
            neutral=({"effort": "medium", "context": "auto", "summary": "auto"},),
            refused=({"effort": "high"}, {"summary": "detailed"}, {"mode": "pro"}),
        ),
        "safety_identifier": Parameter(effects=(("me", same("safety_identifier")),), refused=(7,)),
        "service_tier": Parameter(neutral=("auto", "default"), refused=("flex",)),
        "store": Parameter(effects=((False, _gone),), refused=("no",)),
        "stream_options": Parameter(
            neutral=({"include_obfuscation": False},), refused=({"include_obfuscation": True},)
        ),
        "temperature": Parameter(effects=((0.5, same("temperature")),), refused=(3,)),
        "text": Parameter(neutral=({"format": {"type": "text"}},), refused=({"format": _FORMAT},)),
        "tool_choice": Parameter(
            effects=(("none", lambda a: not _cells(a)),), neutral=("auto",), refused=("required", _FUNCTION)
        ),
        "tools": Parameter(
            effects=(
                ([], lambda a: not _cells(a)),
                ([{"type": "code_interpreter", "container": {"type": "auto"}}], lambda a: len(_cells(a)) == 1),
                (
                    lambda c: [{"type": "code_interpreter", "container": c.containers.create(name="x").id}],
                    lambda a: _cells(a)[0]["container_id"] == a.value[0]["container"],
                ),
            ),
            refused=([_FUNCTION], [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["x"]}}]),
        ),
        "top_logprobs": Parameter(
            effects=((2, lambda a: all(len(t["top_logprobs"]) == 2 for p in _texts(a) for t in p["logprobs"])),),
            refused=(21,),
        ),
        "top_p": Parameter(effects=((0.9, same("top_p")),), refused=(0,)),
        "truncation": Parameter(effects=(("auto", same("truncation")),), refused=("middle",)),
        "user": Parameter(effects=(("me", same("user")),), refused=(7,)),
    },
    streams=True,
)

_GENERAL = {
    "frequency_penalty": Parameter(neutral=(0, 0.0), refused=(0.5,)),
    "logit_bias": Parameter(neutral=({},), refused=({"5": 1},)),
    "model": Parameter(refused=("other",)),
    "n": Parameter(effects=((2, lambda a: len(_choices(a)) == 2),), refused=(0,)),
    "presence_penalty": Parameter(neutral=(0,), refused=(-0.5,)),
    "seed": Parameter(effects=((7, lambda a: _choices(a)[0]["start_agent"]["seed"] == 7),), refused=("x",)),
    "stream_options": Parameter(refused=({"include_obfuscation": True},)),
    "temperature": Parameter(effects=((0.5, lambda a: True),), refused=(3,)),
    "top_p": Parameter(effects=((0.5, lambda a: True),), refused=(0,)),
    "user": _SAID,
}
"""What chat completions and completions have in common. That sampling reaches the engine is a unit test's."""

_CUT = lambda a: a.body["usage"]["completion_tokens"] == 5 and _choices(a)[0]["finish_reason"] == "length"  # noqa: E731

CHAT: Method = Method(
    _MODEL | {"messages": [{"role": "user", "content": "What is 6*7?"}]},
    {
        **_GENERAL,
        "audio": unset({"format": "mp3", "voice": "x"}),
        "function_call": Parameter(neutral=("none", "auto"), refused=({"name": "f"},)),
        "functions": Parameter(neutral=([],), refused=([{"name": "f"}],)),
        "logprobs": Parameter(effects=((True, lambda a: bool(_choices(a)[0]["logprobs"]["content"])),), refused=("x",)),
        "max_completion_tokens": Parameter(effects=((5, _CUT),), refused=(0,)),
        "max_tokens": Parameter(effects=((5, _CUT),), refused=(0,)),
        "messages": Parameter(
            effects=(([{"role": "user", "content": "And 7*8?" * 9}], differs),),
            refused=([{"role": "tool", "content": "x", "tool_call_id": "y"}],),
        ),
        "metadata": Parameter(neutral=(_PAIRS,), refused=({"a": 1},)),
        "modalities": Parameter(neutral=(["text"],), refused=(["audio"],)),
        "moderation": unset({"model": "x"}),
        "parallel_tool_calls": Parameter(neutral=(True, False), refused=("yes",)),
        "prediction": unset({"type": "content", "content": "x"}),
        "prompt_cache_key": _SAID,
        "prompt_cache_options": unset({"mode": "x"}),
        "prompt_cache_retention": unset("24h"),
        "reasoning_effort": Parameter(neutral=("medium",), refused=("high",)),
        "response_format": Parameter(neutral=({"type": "text"},), refused=({"type": "json_object"},)),
        "safety_identifier": _SAID,
        "service_tier": Parameter(neutral=("auto", "default"), refused=("flex",)),
        "stop": Parameter(
            effects=tuple(
                (s, lambda a: _choices(a)[0]["message"]["content"] == "The ") for s in ("answer", ["answer"])
            ),
            refused=("",),
        ),
        "store": Parameter(neutral=(False,), refused=(True,)),
        "tool_choice": Parameter(neutral=("none", "auto"), refused=("required",)),
        "tools": Parameter(neutral=([],), refused=([{"type": "function", "function": {"name": "f"}}],)),
        "top_logprobs": Parameter(refused=(2,)),  # without logprobs; with it is a unit test's
        "verbosity": Parameter(neutral=("medium",), refused=("low",)),
        "web_search_options": unset({}),
    },
    streams=True,
)

COMPLETIONS: Method = Method(
    _MODEL | {"prompt": "<|im_start|>user\n6*7?<|im_end|>\n<|im_start|>assistant\n<think>\n"},
    {
        **_GENERAL,
        "best_of": Parameter(neutral=(1,), refused=(2,)),
        "echo": Parameter(
            effects=((True, lambda a: _choices(a)[0]["text"].startswith(str(COMPLETIONS.base["prompt"]))),),
            neutral=(False,),
            refused=("x",),
        ),
        "logprobs": Parameter(effects=((2, lambda a: bool(_choices(a)[0]["logprobs"]["tokens"])),), refused=(-1,)),
        "max_tokens": Parameter(effects=((5, _CUT),), refused=(0,)),
        "prompt": Parameter(
            effects=((["a", "b"], lambda a: len(_choices(a)) == 2), ([1, 2, 3], differs)), refused=("", [], 7)
        ),
        "stop": Parameter(effects=(("answer", lambda a: _choices(a)[0]["text"].endswith("The ")),), refused=("",)),
        "suffix": unset("x"),
    },
    streams=True,
)
