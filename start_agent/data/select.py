"""Selects traces of runs and writes a data folder: the function behind ``start-agent select``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from start_agent import fields
from start_agent.data.dataset import DataSet, model_of, read_data, source_digests, write_data
from start_agent.data.filters import FilterOptions
from start_agent.data.leakage import held_out_digests, read_held_out
from start_agent.data.loss import LossPolicy
from start_agent.data.selection import SelectionOptions, hint_rft_pairs, rft
from start_agent.errors import ConfigError
from start_agent.models import resolve
from start_agent.tokens.tokenizer import Tokenizer


class SelectOptions(BaseModel):
    """Inputs and output of a selection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["hint-rft", "rft"] = Field(description="selection method")
    runs: tuple[Path, ...] = Field(description="run directories to select traces from", min_length=1)
    greedy: tuple[Path, ...] = Field((), description="run directories without hints, for hint-rft")
    output_dir: Path = Field(description="data folder: a new folder, or that of the same selection")
    model: str | None = Field(None, description="model that made the runs, if their configuration does not name it")
    held_out: tuple[str, ...] = Field(
        (), description="problems never to train on: a task, a run directory, or a file (question, answer)"
    )
    reworded: bool = Field(
        False, description="also exclude problems with the same numbers and answer as a held-out problem"
    )
    near: float = Field(0.8, ge=0, description="similarity from which a problem counts as held out; 2: never")


GROUPS: dict[str, type[BaseModel]] = {
    "select": SelectOptions,
    "selection": SelectionOptions,
    "filters": FilterOptions,
    "loss": LossPolicy,
}
"""The groups of options, by title."""


@dataclass(frozen=True, slots=True)
class SelectConfig:
    """The options of a selection."""

    select: SelectOptions
    selection: SelectionOptions = SelectionOptions()  # noqa: RUF009 - frozen
    filters: FilterOptions = FilterOptions()  # noqa: RUF009 - frozen
    loss: LossPolicy = LossPolicy()  # noqa: RUF009 - frozen

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Build from options by name, named like the flags. Raises ConfigError for an unknown one."""
        fields.refuse_unknown(options, list(GROUPS.values()), "options")
        return cls.from_layers(options)

    @classmethod
    def from_layers(cls, *layers: Mapping[str, Any]) -> Self:
        """Build from layers of options; later layers override earlier ones. Raises ConfigError."""
        selection = fields.build(SelectionOptions, *layers)
        found = cls(
            fields.build(SelectOptions, *layers),
            selection,
            fields.build(FilterOptions, *layers),
            fields.build(LossPolicy, *layers).seeded(selection.seed),
        )
        if (found.select.kind == "hint-rft") != bool(found.select.greedy):
            raise ConfigError("--greedy: hint-rft needs runs without hints; rft does not use them")
        return found

    def stored(self) -> dict[str, Any]:
        """The configuration that determines the rows, JSON-able. Raises RunDirectoryError, DataError."""
        options = self.select
        return {
            "select": options.model_dump(mode="json", exclude={"output_dir"}),
            "selection": self.selection.model_dump(mode="json"),
            "filters": self.filters.model_dump(mode="json"),
            "loss": self.loss.model_dump(mode="json"),
            "records": source_digests((*options.greedy, *options.runs)),
            "held_out": held_out_digests(options.held_out),
        }


def select(config: SelectConfig, on_notice: Callable[[str], None] = lambda line: None) -> DataSet:
    """Select traces and write the data folder, unless the folder has the same selection already.

    Args:
        config: the options.
        on_notice: called with each notice for the user.

    Raises:
        DataError: no row is left, or the folder has another selection or cannot be written.
        RunDirectoryError: a run cannot be read.
        ModelError: the tokenizer of the model that made the runs cannot be loaded.
    """
    options, stored = config.select, config.stored()
    found = read_data(options.output_dir, stored)
    if found is not None:
        on_notice(f"{options.output_dir} exists already")
        return found
    tokenizer = Tokenizer.from_pretrained(resolve(options.model or model_of(options.runs)).location)
    held_out = None
    if options.held_out:
        held_out = read_held_out(options.held_out, options.near, reworded=options.reworded)
    else:
        on_notice("no --held-out: training data is not checked for evaluation problems")
    chosen = (
        hint_rft_pairs(options.greedy, options.runs, tokenizer, config.selection, config.filters, held_out)
        if options.kind == "hint-rft"
        else rft(options.runs, tokenizer, config.selection, config.filters, held_out)
    )
    return write_data(options.output_dir, chosen, config.loss, config=stored, max_length=config.filters.max_length)
