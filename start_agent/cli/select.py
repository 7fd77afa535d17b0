"""``start-agent select``: from runs to a training set."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from start_agent import fields
from start_agent.cli import flags
from start_agent.data.loss import LossPolicy
from start_agent.errors import ConfigError

if TYPE_CHECKING:
    from start_agent.data.leakage import HeldOut

_ABOUT = """Choose traces to learn from and write them as rows: ids, labels, and a readable copy.

  hint-rft   from hinted runs, problems that the greedy runs do not solve and a hinted trace does (START-0's data)
  rft        from sampled runs, right traces, at most one for each problem (START's data)

Traces are filtered; every trace that is left out is counted under the first filter that refuses it. With --repair,
what follows the answer is cut before, and a failed cell is removed where a corrected one follows: such a row is no
longer what the model wrote, and says so. What the loss sees of a hint is --hint: mask (the paper), drop (STaR's way),
train, or a mix. Name what must not be learned with --held-out."""

_EXAMPLES = """examples:
  start-agent select --kind hint-rft --greedy runs/alone --runs runs/hinted --held-out pocket --output-dir data/seed
  start-agent select --kind rft --runs runs/sampled --choice fewest_failed --require-tool --output-dir data/start
  start-agent select --kind hint-rft --greedy runs/alone --runs runs/hinted --hint mix --mix-mask 0.5 --mix-drop 0.5 \\
      --output-dir data/mixed
  start-agent rows show data/seed
"""


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


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "select",
        help="choose traces of runs to learn from",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="PATH", help="YAML file of options, named as the flags are")
    for title, model in _models().items():
        flags.add_options(parser, model, title)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Select and write; 0 where there are rows."""
    from start_agent.data.dataset import read_data, source_digests, write_data
    from start_agent.data.filters import FilterOptions
    from start_agent.data.leakage import held_out_digests
    from start_agent.data.selection import SelectionOptions, hint_rft_pairs, rft

    file, given = fields.read_yaml(arguments.config), vars(arguments)
    fields.refuse_unknown(file, list(_models().values()), arguments.config)
    options = fields.build(SelectOptions, file, given)
    selection, filters = fields.build(SelectionOptions, file, given), fields.build(FilterOptions, file, given)
    policy = fields.build(LossPolicy, file, given)
    if (options.kind == "hint-rft") != bool(options.greedy):
        raise ConfigError("--greedy: hint-rft needs the runs without hints; rft has no use for them")
    resolved = {
        "select": options.model_dump(mode="json", exclude={"output_dir"}),
        "selection": selection.model_dump(mode="json"),
        "filters": filters.model_dump(mode="json"),
        "loss": policy.model_dump(mode="json"),
        "records": source_digests((*options.greedy, *options.runs)),
        "held_out": held_out_digests(options.held_out),
    }
    found = read_data(options.output_dir, resolved)
    if found is not None:
        print(f"{options.output_dir} is there already", file=sys.stderr)
    else:
        tokenizer, held_out = _tokenizer(options), _held_out(options)
        if options.kind == "hint-rft":
            chosen = hint_rft_pairs(options.greedy, options.runs, tokenizer, selection, filters, held_out)
        else:
            chosen = rft(options.runs, tokenizer, selection, filters, held_out)
        found = write_data(options.output_dir, chosen, policy, config=resolved, max_length=filters.max_length)
    _print(found.to_json(), options.output_dir)
    return 0


def _models() -> dict[str, type[BaseModel]]:
    from start_agent.data.filters import FilterOptions
    from start_agent.data.selection import SelectionOptions

    return {"select": SelectOptions, "selection": SelectionOptions, "filters": FilterOptions, "loss": LossPolicy}


def _tokenizer(options: SelectOptions) -> Any:
    from start_agent.data.dataset import model_of
    from start_agent.models import resolve
    from start_agent.tokens.tokenizer import Tokenizer

    return Tokenizer.from_pretrained(resolve(options.model or model_of(options.runs)).location)


def _held_out(options: SelectOptions) -> HeldOut | None:
    from start_agent.data.leakage import read_held_out

    if not options.held_out:
        print("no --held-out: nothing says which problems must not be learned", file=sys.stderr)
        return None
    return read_held_out(options.held_out, options.near, reworded=options.reworded)


def _print(manifest: dict[str, Any], path: Path) -> None:
    from start_agent.cli.live import tables_console
    from start_agent.cli.tables import data_tables

    console = tables_console()
    for table in data_tables(manifest, str(path)):
        console.print(table)
