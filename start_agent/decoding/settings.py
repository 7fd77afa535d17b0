"""The settings of decoding: each option is defined here once, for the command line, YAML and Python alike."""

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
"""Of a stop string: what may be the beginning of one is held back at every token."""


class DecodingSettings(BaseModel):
    """What the controller does with a trace."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hints: bool = Field(True, description="insert hints; without them the model is left alone")
    domain: Domain = Field(Domain.MATH, description="which part of the hint library is used")
    template: Template | None = Field(None, description="variant of a code hint's debug template; any where unset")
    hint_probability: float = Field(0.5, ge=0, le=1, description="chance of a hint at each connective")
    hint_cooldown: int = Field(64, ge=0, description="tokens that the model writes before it is hinted again")
    max_hints: int = Field(1, ge=0, description="hints after connectives, per trace")
    end_of_think_hints: Annotated[int, Renamed("rounds")] = Field(
        1, ge=0, description="hints in place of the end of thinking, per trace"
    )
    connectives: tuple[str, ...] = Field(CONNECTIVES, description="words after which a hint may come")

    tools: bool = Field(True, description="run the code that the model writes while it thinks")
    max_tool_calls: int = Field(6, ge=0, description="cells run per trace; START allows 6")
    dialect: str = Field(
        FENCES.name,
        description="how the model's thoughts call code: fences (blocks of --languages), retool (<code> tags), or a "
        "plug-in's",
    )
    languages: tuple[str, ...] = Field(LANGUAGES, description="language tags of the fenced blocks that are run")
    cell_timeout: float = Field(10.0, gt=0, description="seconds that one cell may run")

    max_tokens: int = Field(16384, ge=1, description="tokens that the model may write in all")
    max_turn_tokens: int = Field(16384, ge=1, description="tokens that the model may write without a stop")
    thinking_token_budget: int | None = Field(
        None, ge=0, description="tokens that the model may write while it thinks; then its thinking is ended for it"
    )
    stop: tuple[str, ...] = Field(
        (),
        max_length=16,
        description="strings that end the answer where they occur in it, after thinking; no part of it",
    )
    logprobs: int | None = Field(
        None,
        ge=0,
        le=MAX_LOGPROBS,
        description="record the log-probability of each token that the model writes, and of so many of the likeliest "
        "in its place; unset, of none",
    )
    repetition_tokens: int = Field(128, ge=0, description="a run repeated over this many tokens ends it; 0 never does")
    repetition_repeats: int = Field(4, ge=2, description="how often the run must have been said by then")

    @field_validator("stop")
    @classmethod
    def _short(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if any(not 0 < len(string) <= MAX_STOP_CHARS for string in stop):
            raise ValueError(f"a stop string has 1 to {MAX_STOP_CHARS} characters")
        return stop

    @property
    def repetition(self) -> Repetition | None:
        """The rule against endless repetition, where there is one."""
        if not self.repetition_tokens:
            return None
        return Repetition(min_tokens=self.repetition_tokens, min_repeats=self.repetition_repeats)

    def markers(self, *think_ends: str, think_start: str = "", dialect: Dialect = FENCES) -> Markers:
        """What counts as a marker.

        Args:
            think_ends: the ways in which the model's thinking ends.
            think_start: what opens it, for a model that must write that itself.
            dialect: that which ``dialect`` names.
        """
        languages = () if dialect.tagged else dialect.languages or self.languages
        tags = dialect.code_open, dialect.code_close
        return Markers(self.connectives, think_ends, languages, think_start, *tags)
