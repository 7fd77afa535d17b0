"""Tables for summaries, comparisons and training sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from start_agent.analysis.compare import Comparison
from start_agent.analysis.stats import wilson_interval
from start_agent.analysis.summary import Summary
from start_agent.batch.progress import Progress
from start_agent.data.card import selection_counts

_MOST_ROWS = 30  # in a table of groups; a data set may have hundreds of subjects


def summary_tables(summary: Summary, name: str, progress: Progress | None = None) -> list[Table]:
    """Tables of a run: its summary, the results of the latest start, and the accuracy by groups."""
    if summary.interval is None or summary.accuracy is None:
        return [Table(title=f"{name}: no records", title_justify="left")]
    table = Table("metric", "value", title=f"{name}: {summary.problems} problems", title_justify="left")
    of = f"{summary.right} of {summary.records}"
    table.add_row("correct", f"{summary.accuracy:.1%} ({_interval(summary.interval)}), {of}")
    if summary.majority is not None and summary.majority_interval is not None:
        value = f"{summary.majority:.1%} ({_interval(summary.majority_interval)})"
        table.add_row(f"majority of {summary.samples}", value)
    for k, rate in summary.pass_at.items():
        table.add_row(f"pass@{k}", f"{rate:.1%}")
    one = "per trace" if summary.traces <= 1 else "per answer"
    if summary.traces > 1:
        table.add_row("traces per answer", f"{summary.traces:.2f}")
    table.add_row("with a tool call", f"{summary.tool_rate:.1%}, {summary.tool_calls:.2f} calls {one}")
    table.add_row("with an unhinted call", f"{summary.unhinted_rate:.1%}")
    if summary.hint_yield is not None:
        table.add_row("hints whose code ran", f"{summary.hint_yield:.1%}, {summary.hints:.2f} hints {one}")
    table.add_row("outcomes", ", ".join(f"{outcome} {count}" for outcome, count in summary.outcomes.items()))
    table.add_row("verdicts", ", ".join(f"{reason} {count}" for reason, count in summary.reasons.items()))
    table.add_row(f"tokens {one}", f"{summary.tokens:.0f}, {summary.total_tokens:,} in all")
    waits = f"{summary.wait_seconds:.1f} waiting for a kernel, {summary.queue_seconds:.1f} for the engine"
    parts = "of them" if summary.traces <= 1 else "over all its traces"  # whose sum may be more: they are concurrent
    table.add_row(f"seconds {one}", f"{summary.seconds:.1f}, {parts} {waits}")
    if summary.reprefilled_share is not None:
        preempted = f", {summary.preemptions:,} preemptions" if summary.preemptions else ""
        fed = f"{summary.fed_tokens:,}, {summary.reprefilled_share:.1%} of them repeated{preempted}"
        table.add_row("tokens processed by the engine", fed)
    if progress is not None and progress.done:
        table.add_row("this start", _start(progress))
    return [table, *(_groups(field, rows, summary.samples) for field, rows in summary.groups.items())]


def _start(progress: Progress) -> str:
    """The results and the speed of one start of a run."""
    seconds = max(progress.seconds, 1e-9)
    parts = [
        f"{progress.done} traces in {seconds:.1f} s",
        f"{progress.tokens / seconds:,.0f} tokens/s",
        f"{progress.tool_calls} tool calls",
        f"engine idle {progress.idle_seconds / seconds:.0%}",
        f"kernel wait {progress.wait_seconds / max(progress.tool_calls, 1):.2f} s/call",
    ]
    return ", ".join(parts)


def _groups(field: str, rows: dict[str, dict[str, float]], samples: int) -> Table:
    table = Table(field, title=f"by {field}", title_justify="left")
    for column in ("traces", "correct", "accuracy", "95% interval"):
        table.add_column(column, justify="right")
    for value, row in list(rows.items())[:_MOST_ROWS]:
        problems = max(1, round(row["records"] / samples))  # the samples of one problem are not independent
        interval = _interval(wilson_interval(row["accuracy"] * problems, problems))
        table.add_row(value, f"{row['records']:.0f}", f"{row['right']:.0f}", f"{row['accuracy']:.1%}", interval)
    if len(rows) > _MOST_ROWS:
        table.add_row(f"... {len(rows) - _MOST_ROWS} more in summary.json")
    return table


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Tables of each run, and of each run compared with the first."""
    title = f"{comparison.problems} problems in common"
    runs = Table("run", title=title, title_justify="left")
    several = any(side.traces > 1 for side in comparison.sides)
    one = "answer" if several else "trace"
    for column in ("correct", "95% interval", "with a tool call", f"calls/{one}", f"tokens/{one}"):
        runs.add_column(column, justify="right")
    if several:
        runs.add_column("traces/answer", justify="right")
    for side in comparison.sides:
        runs.add_row(
            side.name,
            f"{side.accuracy:.1%}",
            _interval(side.interval),
            f"{side.tool_rate:.1%}",
            f"{side.tool_calls:.2f}",
            f"{side.tokens:.0f}",
            *((f"{side.traces:.2f}",) if several else ()),
        )
    pairs = Table("run", title=f"compared with {comparison.sides[0].name}", title_justify="left")
    tests = {pair.test for pair in comparison.pairs}
    p_column = f"{min(tests)} p" if len(tests) == 1 else "p"
    for column in ("difference", "95% interval", "only first correct", "only this correct", p_column, "tokens"):
        pairs.add_column(column, justify="right")
    for pair in comparison.pairs:
        low, high = (100 * bound for bound in pair.interval)
        pairs.add_row(
            pair.name,
            f"{100 * pair.difference:+.1f} points",
            f"{low:+.1f} to {high:+.1f}",
            str(len(pair.only_first)),
            str(len(pair.only_second)),
            f"{pair.p_value:.2g}" + f" {pair.test}" * (len(tests) > 1),
            "-" if pair.token_ratio is None else f"x {pair.token_ratio:.2f}",
        )
    return [runs, pairs]


def data_tables(manifest: Mapping[str, Any], name: str) -> list[Table]:
    """Tables of a training set: the result of selection for the traces, and the contents of the rows."""
    counts = Table("selection", title=name, title_justify="left")
    counts.add_column("traces", justify="right")
    for what, count in selection_counts(manifest["report"], manifest["refused_rows"]).items():
        counts.add_row(what, f"{count:,}")
    for what, count in manifest["report"]["repaired"].items():
        counts.add_row(f"repaired: {what.replace('_', ' ')}", f"{count:,}")
    rows = Table("rows", "tokens", "in the loss", "per row", "hints")
    hints = ", ".join(f"{what} {count}" for what, count in manifest["hint_loss"].items())
    trained, total = manifest["trained"], manifest["tokens"]
    share = f"{trained:,} ({trained / total:.0%})"
    rows.add_row(f"{manifest['rows']:,}", f"{total:,}", share, f"{total / manifest['rows']:.0f} tokens", hints)
    return [counts, rows]


def row_table(row: Mapping[str, Any]) -> Table:
    """A table of a row's tokens by origin, and how many of them are in the loss."""
    table = Table("origin", title=f"{row['key'][:12]}, hints: {row['hint_loss']}", title_justify="left")
    for column in ("spans", "tokens", "in the loss"):
        table.add_column(column, justify="right")
    totals: dict[str, list[int]] = {}
    at = 0
    for span in row["spans"]:
        entry = totals.setdefault(span["kind"], [0, 0, 0])
        end = at + span["length"]
        for place, count in enumerate((1, span["length"], sum(row["assistant_masks"][at:end]))):
            entry[place] += count
        at = end
    for kind, counts in totals.items():
        table.add_row(kind, *map(str, counts))
    table.add_row("all", *(str(sum(counts)) for counts in zip(*totals.values(), strict=True)), style="bold")
    return table


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}"
