"""The options that choose problems: defined once, for the command line, YAML and Python alike."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from start_agent.fields import MayGrow, Runtime

_DATE = r"^(\d{4}-\d\d-\d\d)?$"


class DataOptions(BaseModel):
    """Which problems."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str | None = Field(
        None,
        description="a known task or a plug-in's, which says where its problems are and how they are read",
    )
    data: str | None = Field(None, description="a JSONL or Parquet file, a folder of them, or a set of the hub")
    subset: str = Field("", description="configuration of a set of the hub")
    split: str | None = Field(None, description="split of the set; the task's own, or 'test'")
    question_column: str | None = Field(None, description="column of the question, where --data is no known task's")
    answer_column: str | None = Field(None, description="column of the gold answer, where --data is no known task's")
    level_column: str = Field("", description="column of the level, for a table of accuracy by level")
    subject_column: str = Field("", description="column of the subject")
    choices_column: str = Field("", description="column of a list of choices: makes it multiple choice")
    release: str = Field(
        "",
        description="release of livecodebench: release_v5 for all up to v5, v5 for v5 alone, v3_v5; all files if empty",
    )
    start_date: str = Field(
        "", pattern=_DATE, description="only problems of contests from this day on, 2024-08-01 (of livecodebench)"
    )
    end_date: str = Field("", pattern=_DATE, description="only problems of contests up to this day (of livecodebench)")
    tolerance: float = Field(
        0.0, ge=0, lt=1, description="how far a program's number may be off, relative or absolute (of code tasks)"
    )
    limit: MayGrow[int | None] = Field(None, ge=1, description="only so many problems, the first ones")
    stream: Runtime[bool | None] = Field(
        None, description="read a set of the hub row by row, without downloading it whole"
    )
    choice_seed: int | None = Field(
        None, ge=0, description="shuffles the choices of gpqa_diamond; recorded with each problem (default: --seed)"
    )

    def seeded(self, seed: int | None, *, shuffles: bool) -> Self:
        """With the seed of the choices, where none is given: that of the run, or 0 where nothing is shuffled."""
        if self.choice_seed is not None:
            return self
        return self.model_copy(update={"choice_seed": seed or 0 if shuffles else 0})
