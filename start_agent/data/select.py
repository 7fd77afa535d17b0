"""From runs to a data folder: what ``start-agent select`` does."""

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
    """What is selected from, and where it goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["hint-rft", "rft"] = Field(description="how traces are selected")
    runs: tuple[Path, ...] = Field(description="run directory that traces are taken from", min_length=1)
    greedy: tuple[Path, ...] = Field((), description="run directory without hints, for hint-rft")
    output_dir: Path = Field(description="the data folder: new, or that of the same selection")
    model: str | None = Field(None, description="the model that made the runs, where they do not say it")
    held_out: tuple[str, ...] = Field(
        (), description="problems never to train on: a task, a run directory, or a file (question, answer)"
    )
    reworded: bool = Field(
        False, description="held out is also what has the same numbers and answer as a held-out problem"
    )
    near: float = Field(0.8, ge=0, description="likeness from which a problem counts as a held-out one; 2: never")


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
        """From options by name, named as the flags are. Raises ConfigError for an unknown one."""
        fields.refuse_unknown(options, list(GROUPS.values()), "options")
        return cls.from_layers(options)

    @classmethod
    def from_layers(cls, *layers: Mapping[str, Any]) -> Self:
        """From layers of options, later ones over earlier ones. Raises ConfigError."""
        selection = fields.build(SelectionOptions, *layers)
        found = cls(
            fields.build(SelectOptions, *layers),
            selection,
            fields.build(FilterOptions, *layers),
            fields.build(LossPolicy, *layers).seeded(selection.seed),
        )
        if (found.select.kind == "hint-rft") != bool(found.select.greedy):
            raise ConfigError("--greedy: hint-rft needs the runs without hints; rft has no use for them")
        return found

    def stored(self) -> dict[str, Any]:
        """What decides the rows, JSON-able. Raises RunDirectoryError, DataError."""
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
    """Select and write, unless the folder holds the same selection already.

    Args:
        config: the options.
        on_notice: gets each line that the user should know.

    Raises:
        DataError: no row is left, or the folder holds another selection or cannot be written.
        RunDirectoryError: a run cannot be read.
        ModelError: the tokenizer of the model that made the runs cannot be loaded.
    """
    options, stored = config.select, config.stored()
    found = read_data(options.output_dir, stored)
    if found is not None:
        on_notice(f"{options.output_dir} is there already")
        return found
    tokenizer = Tokenizer.from_pretrained(resolve(options.model or model_of(options.runs)).location)
    held_out = None
    if options.held_out:
        held_out = read_held_out(options.held_out, options.near, reworded=options.reworded)
    else:
        on_notice("no --held-out: nothing says which problems must not be learned")
    chosen = (
        hint_rft_pairs(options.greedy, options.runs, tokenizer, config.selection, config.filters, held_out)
        if options.kind == "hint-rft"
        else rft(options.runs, tokenizer, config.selection, config.filters, held_out)
    )
    return write_data(options.output_dir, chosen, config.loss, config=stored, max_length=config.filters.max_length)
