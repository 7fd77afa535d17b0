"""``start-agent rows``: shows rows of a training set, checks it against its runs, or exports it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from start_agent import fields
from start_agent.cli import flags
from start_agent.data.export import Format
from start_agent.errors import ConfigError, DataError
from start_agent.fields import Renamed

if TYPE_CHECKING:
    from rich.text import Text

    from start_agent.tokens.tokenizer import Tokenizer

_SHOW = """Print a row as the trainer sees it. Trained tokens are bold, masked tokens dim (and between ⟦ and ⟧ if there
are no colours). The model's text is white, hints yellow, tool outputs cyan, notices magenta, the prompt blue. A table
counts the tokens of each."""

_EXPORT = """Write a training set for other tools, with its card and manifest. The default --format is trl, rows of
tokens. The formats datasets, jsonl, trl and verl keep the mask; ShareGPT cannot. --push uploads to the Hub instead,
to a private data set and never to a public one."""

_EXPORT_EXAMPLES = """examples:
  start-agent rows export --data data/seed --output-dir export/seed
  start-agent rows export --data data/seed --push me/start-seed
"""

_COLOURS = {"prompt": "blue", "model": "white", "hint": "yellow", "tool_output": "cyan", "notice": "magenta"}


class ShowOptions(BaseModel):
    """The choice of a row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int = Field(0, ge=0, description="index of the row, from 0")
    model: str | None = Field(None, description="the model whose tokenizer decodes the ids; the runs' model if unset")


class ExportOptions(BaseModel):
    """The format and the destination."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format = Field(Format.TRL, description="output format; trl has ids and labels, ready for training")
    output_dir: Annotated[Path | None, Renamed("output")] = Field(
        None, description="the folder to write, which must not exist"
    )
    push: str = Field("", description="upload to this private data set on the Hub instead of writing a folder")


def add(commands: Any) -> None:
    """Add the command and its subcommands to the parser."""
    parser = commands.add_parser("rows")
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    raw = argparse.RawDescriptionHelpFormatter

    show = actions.add_parser("show", help="one row in colour", description=_SHOW, formatter_class=raw)
    flags.add_options(show, ShowOptions, "row")
    show.set_defaults(run=run_show)

    check = actions.add_parser(
        "check",
        help="check the rows against the runs they came from",
        description="Check that the rows are unchanged, and that the trace of each row is unchanged in its run.",
    )
    check.set_defaults(run=run_check)

    export = actions.add_parser(
        "export",
        help="write the rows for other tools",
        description=_EXPORT,
        epilog=_EXPORT_EXAMPLES,
        formatter_class=raw,
    )
    flags.add_options(export, ExportOptions, "export")
    export.set_defaults(run=run_export)

    for action in (show, check, export):
        action.add_argument(
            "--data", type=Path, metavar="PATH", help="a data folder, made by start-agent select (required)"
        )
        action.add_argument("old_data", nargs="?", type=Path, help=argparse.SUPPRESS)


def _data(arguments: argparse.Namespace) -> Path:
    """The data folder, which was a positional argument in earlier versions."""
    given: Path | None = arguments.data
    if given is None and arguments.old_data is not None:
        print(f"start-agent: {fields.renaming('DIR', '--data DIR')}", file=sys.stderr)
        given = arguments.old_data
    if given is None:
        raise ConfigError("--data: give a data folder made by  start-agent select")
    return given


def run_show(arguments: argparse.Namespace) -> int:
    """Print a row."""
    from rich.console import Console

    from start_agent.cli.tables import row_table
    from start_agent.data.dataset import model_of, need_data, read_rows
    from start_agent.models import resolve
    from start_agent.tokens.tokenizer import Tokenizer

    options, data = fields.build(ShowOptions, vars(arguments)), _data(arguments)
    found = need_data(data)
    row = next((row for number, row in enumerate(read_rows(data)) if number == options.index), None)
    if row is None:
        raise DataError(f"{data} has {found.rows} rows; use --index 0 to {found.rows - 1}")
    model = options.model or found.config.get("select", {}).get("model") or model_of((Path(row["run"]),))
    console = Console(highlight=False)
    tokenizer = Tokenizer.from_pretrained(resolve(model).location)
    console.print(row_text(row, tokenizer, marked=not console.is_terminal), soft_wrap=True)
    console.print(row_table(row))
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """Check; 0 if nothing has changed."""
    from start_agent.data.dataset import check

    found = check(_data(arguments))
    state = "unchanged" if found.intact else "CHANGED since they were written"
    print(f"{found.rows} rows, {state}; traces changed in their runs: {found.changed}, missing: {found.missing}")
    return 0 if found.good else 1


def run_export(arguments: argparse.Namespace) -> int:
    """Write or upload; prints the destination."""
    from start_agent.data.export import NOTES, export, push

    options = fields.build(ExportOptions, vars(arguments))
    if options.push:
        print(push(_data(arguments), options.push))
        return 0
    if options.output_dir is None:
        raise DataError("use --output-dir for the folder to write, or --push for a data set on the Hub")
    if options.format in NOTES:
        print(f"note: {NOTES[options.format]}", file=sys.stderr)
    print(export(_data(arguments), options.output_dir, options.format))
    return 0


def row_text(row: Mapping[str, Any], tokenizer: Tokenizer, *, marked: bool = False) -> Text:
    """A row in colour, by origin; trained tokens are bold, masked tokens dim.

    With ``marked``, masked tokens are also between ⟦ and ⟧.
    """
    from rich.text import Text

    text = Text()
    kinds = [span["kind"] for span in row["spans"] for _ in range(span["length"])]
    tokens = zip(row["input_ids"], row["assistant_masks"], kinds, strict=True)
    for (kind, trained), run in groupby(tokens, key=lambda token: (token[2], token[1])):
        shown = tokenizer.decode(token_id for token_id, _, _ in run)
        if marked and not trained:
            shown = f"⟦{shown}⟧"
        text.append(shown, style=f"{'bold' if trained else 'dim'} {_COLOURS[kind]}")
    return text
