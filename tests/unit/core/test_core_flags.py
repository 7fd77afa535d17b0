"""Flags from options: lists, choices, settings that are passed to a library."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from start_agent import fields
from start_agent.cli import flags
from start_agent.cli.parser import Parser
from start_agent.errors import ConfigError
from start_agent.fields import Pairs, command_words


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    runs: tuple[Path, ...] = Field((Path("x"),), description="runs")
    parts: tuple[Literal["one", "two"], ...] = Field(("one", "two"), description="parts")
    words: tuple[str, ...] = Field((), description="words")
    colour: Colour = Field(Colour.RED, description="colour")
    size: Literal["s", "m"] | None = Field("s", description="size")
    engine_arg: Pairs = Field({}, description="arguments")


def parsed(*words: str, positional: bool = False) -> Options:
    parser = Parser()
    if positional:
        parser.add_argument("question", nargs="?")
    flags.add_options(parser, Options, "options")
    return fields.build(Options, vars(parser.parse_args(words)))


@pytest.mark.parametrize(
    "words",
    [
        ("--runs", "a", "b,c"),
        ("--runs", "a", "--runs", "b", "c"),
        ("--runs=a,b,c",),
        ("--runs", "a", "--runs", "b", "--runs", "c"),
        ("--runs", "a,b,c,"),
    ],
)
def test_a_list_is_given_by_words_by_commas_or_by_repetition(words: tuple[str, ...]) -> None:
    assert parsed(*words).runs == (Path("a"), Path("b"), Path("c"))


def test_a_list_beside_a_positional_argument_takes_one_word() -> None:
    assert parsed("--words", "a,b", "What is it?", positional=True).words == ("a", "b")


@pytest.mark.parametrize("values", [(), ("But, wait", "a\\b"), ("-x", "b"), ("a", "")[:1]])
def test_words_that_are_shown_give_the_list_again(values: tuple[str, ...]) -> None:
    assert parsed(*command_words({"words": values})).words == values


@pytest.mark.parametrize(
    "words", [("--colour", "green"), ("--size", "xl"), ("--runs",), ("--parts", "three"), ("--engine-arg", "x")]
)
def test_what_is_no_choice_is_refused(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((SystemExit, ConfigError)) as refused:
        parsed(*words)
    said = capsys.readouterr().err if refused.type is SystemExit else str(refused.value)
    assert words[0] in said


def test_an_option_with_choices_can_be_unset() -> None:
    assert parsed("--size", "none").size is None


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("a=1", "b=text", "c=true", 'd={"e": [1]}'), {"a": 1, "b": "text", "c": True, "d": {"e": [1]}}),
        (("a=b=c",), {"a": "b=c"}),
        (("a=1", "a=2"), {"a": 2}),
        (('{"a": 1, "b": "x"}',), {"a": 1, "b": "x"}),
        (("a=",), {"a": ""}),
    ],
)
def test_settings_for_a_library_are_json_or_text(words: tuple[str, ...], found: dict[str, Any]) -> None:
    options = parsed(*(f"--engine-arg={word}" for word in words))
    assert options.engine_arg == found
    assert fields.build(Options, {"engine_arg": found}) == options
    assert parsed(*command_words({"engine_arg": found})) == options


@pytest.mark.parametrize("wrong", ["no-sign", "=x", 3, ["a"]])
def test_settings_of_another_form_are_an_error(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"^--engine-arg"):
        fields.build(Options, {"engine_arg": wrong})


def test_the_help_shows_kinds_choices_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    said = " ".join(capsys.readouterr().out.split())
    assert "--runs PATH [PATH ...]" in said
    assert "--parts {one,two} [{one,two} ...] parts (default: one,two)" in said
    assert "--colour {red,blue} colour (default: red)" in said
    assert "--engine-arg KEY=VALUE" in said
