"""The options that choose problems, for the command line, YAML and Python."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from start_agent.fields import MayGrow, Runtime

_DATE = r"^(\d{4}-\d\d-\d\d)?$"


class DataOptions(BaseModel):
    """The choice of problems."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str | None = Field(
        None,
        description="a built-in task or a plug-in's, which defines where its problems are and how they are read",
    )
    data: str | None = Field(None, description="a JSONL or Parquet file, a folder of them, or a data set on the Hub")
    subset: str = Field("", description="configuration of a data set on the Hub")
    split: str | None = Field(None, description="split of the data set (default: the task's, or 'test')")
    question_column: str | None = Field(None, description="column of the question, for --data without --task")
    answer_column: str | None = Field(None, description="column of the gold answer, for --data without --task")
    level_column: str = Field("", description="column of the level, for a table of accuracy by level")
    subject_column: str = Field("", description="column of the subject")
    choices_column: str = Field("", description="column of a list of choices; makes the problems multiple choice")
    release: str = Field(
        "",
        description="release of livecodebench: release_v5 (all up to v5), v5 (v5 alone) or v3_v5; empty for all files",
    )
    start_date: str = Field(
        "",
        pattern=_DATE,
        description="only problems of contests from this date on, like 2024-08-01 (livecodebench)",
    )
    end_date: str = Field("", pattern=_DATE, description="only problems of contests up to this date (livecodebench)")
    tolerance: float = Field(
        0.0, ge=0, lt=1, description="allowed error of a program's numbers, relative or absolute (code tasks)"
    )
    limit: MayGrow[int | None] = Field(None, ge=1, description="only the first N problems")
    stream: Runtime[bool | None] = Field(
        None, description="read a data set on the Hub row by row, without downloading it completely"
    )
    choice_seed: int | None = Field(
        None,
        ge=0,
        description="shuffles the choices of gpqa_diamond; stored with each problem (default: --seed)",
    )

    def seeded(self, seed: int | None, *, shuffles: bool) -> Self:
        """A copy with ``choice_seed`` set: if none is given, the run's seed, or 0 if nothing is shuffled."""
        if self.choice_seed is not None:
            return self
        return self.model_copy(update={"choice_seed": seed or 0 if shuffles else 0})
