"""Decoding settings: each option is defined once, for the command line, YAML and Python."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hints import Domain, Template
from start_agent.fields import Renamed
from start_agent.logprobs import MAX_LOGPROBS
from start_agent.tokens.dialects import FENCES, Dialect
from start_agent.tokens.markers import CONNECTIVES, LANGUAGES, Markers
from start_agent.tokens.stopping import Repetition

MAX_STOP_CHARS = 256
"""Maximum length of a stop string: text that may be the beginning of one is held back."""


class DecodingSettings(BaseModel):
    """Hints, tools and limits of a trace."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hints: bool = Field(True, description="insert hints")
    domain: Domain = Field(Domain.MATH, description="domain of the hints that are used")
    template: Template | None = Field(None, description="variant of a code hint's debug template (default: any)")
    hint_probability: float = Field(0.5, ge=0, le=1, description="probability of a hint at each connective")
    hint_cooldown: int = Field(64, ge=0, description="minimum model tokens between an insertion and a hint")
    max_hints: int = Field(1, ge=0, description="maximum hints after connectives per trace")
    end_of_think_hints: Annotated[int, Renamed("rounds")] = Field(
        1, ge=0, description="maximum hints in place of the end of thinking per trace"
    )
    connectives: tuple[str, ...] = Field(CONNECTIVES, description="words after which a hint may be inserted")

    tools: bool = Field(True, description="run the code that the model writes while it thinks")
    max_tool_calls: int = Field(6, ge=0, description="maximum cells run per trace; START allows 6")
    dialect: str = Field(
        FENCES.name,
        description="how the model calls code while thinking: fences (blocks of --languages), retool (<code> tags), "
        "or a plug-in's",
    )
    languages: tuple[str, ...] = Field(LANGUAGES, description="language tags of the fenced blocks that are run")
    cell_timeout: float = Field(10.0, gt=0, description="timeout of a cell in seconds")

    max_tokens: int = Field(16384, ge=1, description="maximum model tokens per trace")
    max_turn_tokens: int = Field(16384, ge=1, description="maximum model tokens per turn")
    thinking_token_budget: int | None = Field(
        None, ge=0, description="maximum model tokens of thinking; then the end of thinking is inserted"
    )
    stop: tuple[str, ...] = Field(
        (),
        max_length=16,
        description="stop strings: they end the answer, after thinking, and are no part of it",
    )
    logprobs: int | None = Field(
        None,
        ge=0,
        le=MAX_LOGPROBS,
        description="record the log-probability of each model token, and of this many of the most likely tokens at "
        "its position (default: none)",
    )
    repetition_tokens: int = Field(128, ge=0, description="repetition over this many tokens ends the trace; 0 is off")
    repetition_repeats: int = Field(4, ge=2, description="minimum number of repeats")

    @field_validator("stop")
    @classmethod
    def _short(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if any(not 0 < len(string) <= MAX_STOP_CHARS for string in stop):
            raise ValueError(f"a stop string has 1 to {MAX_STOP_CHARS} characters")
        return stop

    @property
    def repetition(self) -> Repetition | None:
        """The rule against endless repetition; None if it is off."""
        if not self.repetition_tokens:
            return None
        return Repetition(min_tokens=self.repetition_tokens, min_repeats=self.repetition_repeats)

    def markers(self, *think_ends: str, think_start: str = "", dialect: Dialect = FENCES) -> Markers:
        """The markers to look for.

        Args:
            think_ends: the strings that end the model's thinking.
            think_start: the string that opens it, for a model that must write it itself.
            dialect: the dialect that the option ``dialect`` names.
        """
        languages = () if dialect.tagged else dialect.languages or self.languages
        tags = dialect.code_open, dialect.code_close
        return Markers(self.connectives, think_ends, languages, think_start, *tags)
