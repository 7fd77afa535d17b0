"""Options: one definition for the command line, YAML and Python; errors in one line."""

from __future__ import annotations

import argparse
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from hints import Template
from start_agent.build import SolveOptions
from start_agent.cli.flags import add_options
from start_agent.decoding.settings import DecodingSettings
from start_agent.engines.base import Sampling
from start_agent.errors import ConfigError
from start_agent.fields import (
    MayGrow,
    Runtime,
    build,
    changed,
    coerce,
    command_words,
    deciding,
    growing_names,
    parsed_words,
    read_yaml,
    refuse_unknown,
    runtime_names,
)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(100, ge=1, description="100% of the tokens")
    chance: float = Field(0.5, ge=0, le=1, description="a chance")
    hints: bool = Field(True, description="hints")
    words: tuple[str, ...] = Field(("Wait", "But"), description="words")
    colour: Colour = Field(Colour.RED, description="a colour")
    shade: Colour | None = Field(None, description="another")
    mode: Literal["fast", "slow"] = Field("fast", description="a mode")
    path: Path | None = Field(None, description="a path")
    name: str = Field(description="a name")


class Other(BaseModel):
    seed: int = 0


def parse(*arguments: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, Options, "options")
    add_options(parser, Other, "others")
    return vars(parser.parse_args(arguments))


def test_what_is_not_given_is_not_there() -> None:
    assert parse() == {}
    assert build(Options, {"name": "n"}, parse()) == Options(name="n")


def test_the_command_line_overrides_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("max-tokens: 7\nchance: 0.25\nhints: false\nwords: [So]\nname: file\nseed: 3\n")
    file = read_yaml(path)
    refuse_unknown(file, [Options, Other], path)
    given = parse("--max-tokens", "9", "--hints", "--words", "Hmm", "--words", "No", "--shade", "blue", "--path", "a/b")
    options = build(Options, file, given)
    assert options.model_dump() == {
        "max_tokens": 9,
        "chance": 0.25,
        "hints": True,
        "words": ("Hmm", "No"),
        "colour": Colour.RED,
        "shade": Colour.BLUE,
        "mode": "fast",
        "path": Path("a/b"),
        "name": "file",
    }
    assert build(Other, file, given).seed == 3  # keys of the other model are passed over
    assert build(Options, file, {}).hints is False
    assert parse("--no-hints") == {"hints": False}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"max_tokens": "many"}, "--max-tokens"),
        ({"max_tokens": 0}, "--max-tokens"),
        ({"max_tokens": 1.5}, "--max-tokens"),
        ({"max_tokens": None}, "--max-tokens"),
        ({"chance": "2"}, "--chance"),
        ({"hints": "perhaps"}, "--hints"),
        ({"words": [1]}, "--words"),
        ({"words": 7}, "--words"),
        ({"colour": "green"}, "--colour"),
        ({"shade": "a\nb"}, "--shade"),
        ({"mode": "medium"}, "--mode"),
        ({"name": None}, "--name"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_option(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Options, {"name": "n"}, values)
    message = str(caught.value)
    assert message.startswith(f"{named}: ") and "\n" not in message
    assert repr(next(iter(values.values()))) in message or named == "--words"


def test_a_required_option_that_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"^--name is missing$"):
        build(Options)


def test_unknown_keys() -> None:
    refuse_unknown({"seed": 1, "name": "n"}, [Options, Other], "x")
    with pytest.raises(ConfigError, match=r"^x\.yaml: unknown option 'max_token': did you mean 'max_tokens'\?"):
        refuse_unknown({"name": 1, "max_token": 1, "zeta": 1}, [Options, Other], "x.yaml")
    with pytest.raises(ConfigError) as caught:
        refuse_unknown({"zzz": 1}, [Options, Other], "x.yaml")
    assert "did you mean" not in str(caught.value)


def test_one_value_is_a_list_of_one(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("connectives: Wait\n")
    assert build(DecodingSettings, read_yaml(path)).connectives == ("Wait",)
    assert build(SolveOptions, {"hint_files": "a.yaml"}).hint_files == (Path("a.yaml"),)


@pytest.mark.parametrize(
    "content",
    ["end_of_think_hints: 1\nend_of_think_hints: 2\n", "max-tokens: 1\nmax_tokens: 2\n", "a:\n  b: 1\n  b: 2\n"],
)
def test_a_key_given_twice_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value) and "twice" in str(caught.value) and "\n" not in str(caught.value)


def test_merged_keys_may_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("base: &base {a: 1}\nmore:\n  <<: *base\n  a: 2\n")
    assert read_yaml(path)["more"] == {"a": 2}


class Marked(BaseModel):
    steps: Runtime[int | None] = Field(None, ge=1)
    samples: MayGrow[int] = Field(1, ge=1)
    seed: int = 0


def test_runtime_options_decide_nothing() -> None:
    assert runtime_names(Marked, Options) == {"steps"}
    assert growing_names(Marked, Options) == {"samples"}
    assert deciding(Marked(steps=3)) == {"samples": 1, "seed": 0}
    with pytest.raises(ConfigError, match=r"^--steps: "):
        build(Marked, {"steps": 0})
    assert parse_of(Marked, "--steps", "2") == {"steps": "2"}


def test_options_in_python() -> None:
    assert coerce(Sampling, None) == Sampling()
    assert coerce(Sampling, {"top_k": 3}) == coerce(Sampling, Sampling(top_k=3)) == Sampling(top_k=3)
    wrong: Any
    for wrong in ({"topk": 3}, {"top_k": -1}, 3, Sampling, DecodingSettings()):
        with pytest.raises(ConfigError):
            coerce(Sampling, wrong)


def parse_of(model: type[BaseModel], *arguments: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, model, "options")
    return vars(parser.parse_args(arguments))


def test_no_file_and_an_empty_one(tmp_path: Path) -> None:
    assert read_yaml(None) == {}
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize(
    "content", [b"a: [1\nb: 2\n", b"- a\n- b\n", b"just text", b"\xff\xfe\xfa", b"a: \x00", b"a: 1\n b: :"]
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(ConfigError, match="cannot read the configuration"):
            read_yaml(path)


def test_the_help_says_type_and_default() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Options, "options")
    text = " ".join(parser.format_help().split())
    for expected in (
        "--max-tokens N 100% of the tokens (default: 100)",
        "--hints, --no-hints hints (default: True)",
        "--words TEXT [TEXT ...] words (default: Wait,But); several: a,b",
        "--colour {red,blue} a colour (default: red)",
        "--shade {red,blue} another --mode {fast,slow} a mode (default: fast)",
        "--path PATH a path --name TEXT a name (required)",
    ):
        assert expected in text


def words(options: BaseModel) -> list[str]:
    """The flags of the options that are not at their defaults."""
    return command_words(changed(options))


@pytest.mark.parametrize(
    "options",
    [
        DecodingSettings(),
        DecodingSettings(hints=False, connectives=("Hmm", "But wait"), hint_probability=1, template=Template.STDIN),
        Sampling(temperature=0.6, top_p=0.95),
        SolveOptions(model="some/where", instruction="", hint_files=(Path("a.yaml"), Path("b.yaml"))),
    ],
)
def test_flags_give_the_options_again(options: BaseModel) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, type(options), "some")
    assert build(type(options), vars(parser.parse_args(words(options)))) == options


def test_flags_of_what_no_flag_gives() -> None:
    assert words(Options(name="-x"))[-1:] == ["--name=-x"]
    assert parse(*words(Options(name="-x", words=("-a", "b")))) == {"name": "-x", "words": ["-a", "b"]}
    given = words(Options(name="-x", words=("-a", "b")))
    assert build(Options, parsed_words(given)) == Options(name="-x", words=("-a", "b"))


def test_flags_say_what_is_not_a_default() -> None:
    settings = DecodingSettings(hints=False, end_of_think_hints=2)
    assert words(DecodingSettings()) == []
    assert words(settings) == ["--no-hints", "--end-of-think-hints", "2"]
    assert changed(settings, leave_out={"hints"}) == {"end_of_think_hints": 2}


def test_none_unsets_an_option_that_has_a_default() -> None:
    assert build(SolveOptions, {"seed": "none"}).seed is None
    assert build(SolveOptions, {"seed": None}).seed is None
    assert words(SolveOptions(seed=None)) == ["--seed", "none"]
    with pytest.raises(ConfigError, match="--max-tokens"):
        build(Options, {"max_tokens": "none", "name": "x"})
