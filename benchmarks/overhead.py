"""Overhead of the runner: its tokens per second compared with bare ``AsyncLLM``, at the same concurrency.

Ours: pocket problems through the runner (solver, controller, hints, sandbox, records). Bare: the same prompts through
the same ``AsyncLLM`` in its cheapest form (no detokenization, one output at the end), each for a fixed number of
tokens, with the same number of concurrent requests. The prefix cache is emptied before each run. (vLLM's core reports
every step of a bare request, but of ours only the end of a turn: see ``start_agent/engines/vllm/scheduler.py``.)

* ``tokens_ratio``: with hints and tools; tokens per second as the runner counts them (everything after the prompts,
  including inserted tokens); bare decodes as many. Kernels share the CPU with the engine if it has no GPU.
* ``decoded_ratio``: the same runs, counting only tokens that the model generated. Insertions are then extra work of
  ours: they are prefilled and attended to, but not counted.
* ``fed_ratio``: computed tokens of ours divided by those of bare for ``decoded_ratio``: the cost of insertions,
  independent of the machine. ``again_share``: the share of recomputed tokens in ours, since the cache holds full
  blocks.
* ``elsewhere_ratio``: as ``tokens_ratio``, but kernels take no CPU from the engine, as with a GPU or with sandboxes on
  other machines: cells are not run but replay their recorded results after the same time.
* ``plain_ratio``: without hints and tools, so that traces are never interrupted: the overhead of our layers alone.

Ratios are medians over pairs of consecutive runs, since the load of the machine may change over time.

    python -m benchmarks.overhead [--quick] [--problems N] [--concurrency N] [--repeats N]
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: what is beside this one must not be taken for top-level modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks.batches import Batch, solve_batch, vllm_version
from benchmarks.report import Report, Target, common_settings, new_parser, positive, rounded, run, say
from benchmarks.sandboxes import Recorded
from sandbox import Sandbox
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.vllm import VLLMEngine, VLLMOptions
from start_agent.models import resolve
from start_agent.pocket import held_out
from start_agent.trace import SpanKind, Trace

TARGETS: dict[str, Target] = {"tokens_ratio": (">=", 0.9), "elsewhere_ratio": (">=", 0.9)}

HINTED = DecodingSettings(hint_probability=1, end_of_think_hints=1)
PLAIN = DecodingSettings(hints=False, tools=False)


@dataclass(frozen=True, slots=True)
class Speed:
    """A number of tokens and their wall time."""

    tokens: int
    seconds: float

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Pair:
    """Consecutive runs of ours and bare, for the same number of tokens."""

    ours: Speed
    bare: Speed

    @property
    def ratio(self) -> float:
        """Our rate divided by the bare one."""
        return self.ours.rate / self.bare.rate


class Bare:
    """``AsyncLLM`` used directly.

    Args:
        llm: the ``AsyncLLM`` of the measured engine.
        places: number of concurrent requests.
    """

    def __init__(self, llm: Any, places: int) -> None:
        self._llm, self._places, self._numbers = llm, places, count()

    async def empty_cache(self) -> None:
        """Empty the prefix cache."""
        await self._llm.reset_prefix_cache()

    async def decode(self, work: Sequence[tuple[tuple[int, ...], int]]) -> Speed:
        """Decode the given number of tokens for each prompt."""
        await self.empty_cache()
        pending, begun = iter(work), time.perf_counter()

        async def place() -> None:
            for prompt, tokens in pending:
                await self._request(prompt, tokens)

        await asyncio.gather(*(place() for _ in range(self._places)))
        return Speed(sum(tokens for _, tokens in work), time.perf_counter() - begun)

    async def _request(self, prompt: tuple[int, ...], tokens: int) -> None:
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        sampling = SamplingParams(
            temperature=0,
            max_tokens=tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )
        async for output in self._llm.generate(tokens_input(list(prompt)), sampling, f"bare {next(self._numbers)}"):
            assert len(output.outputs[0].token_ids) == tokens


def work_of(traces: Sequence[Trace], *, inserted: bool) -> list[tuple[tuple[int, ...], int]]:
    """The prompt of each trace, and the number of tokens after it: the model's only, or including inserted ones."""
    work = []
    for trace in traces:
        tokens = trace.count() - trace.count(SpanKind.PROMPT) if inserted else trace.count(SpanKind.MODEL)
        if tokens:
            work.append((trace.spans[0].token_ids, tokens))
    return work


async def measure(arguments: argparse.Namespace) -> Report:
    """Alternate hinted and plain runs, each followed by its bare counterparts."""
    problems = held_out(arguments.problems or (48 if arguments.quick else 500))
    places = min(arguments.concurrency, len(problems))
    pairs: dict[str, list[Pair]] = {"tokens": [], "decoded": [], "elsewhere": [], "plain": []}
    batches: list[Batch] = []
    options = VLLMOptions(max_num_seqs=places, threads=arguments.threads)
    box = Sandbox(size=places, prestart=4, unsafe_no_isolation=arguments.unsafe_no_isolation)
    async with VLLMEngine(resolve(arguments.model).location, options) as engine, box:
        bare, tools = Bare(engine._llm, places), Recorded(box)

        async def ours(decoding: DecodingSettings, some: int | None = None) -> Batch:
            await bare.empty_cache()
            solver = Solver(engine, tools if decoding.tools else None, settings=decoding)
            return await solve_batch(solver, problems[:some], concurrency=places, seed=arguments.seed)

        await ours(HINTED, 16)  # warm-up
        for repeat in range(arguments.repeats):
            say(f"repeat {repeat + 1}")
            tools.recording = True
            batch = await ours(HINTED)
            batches.append(batch)
            for name, inserted in (("tokens", True), ("decoded", False)):
                work = work_of(list(batch.traces.values()), inserted=inserted)
                theirs = await bare.decode(work)
                pairs[name].append(Pair(Speed(theirs.tokens, batch.seconds), theirs))
            tools.recording = False
            batch = await ours(HINTED)
            theirs = await bare.decode(work_of(list(batch.traces.values()), inserted=True))
            pairs["elsewhere"].append(Pair(Speed(theirs.tokens, batch.seconds), theirs))
            batch = await ours(PLAIN)
            theirs = await bare.decode(work_of(list(batch.traces.values()), inserted=False))
            pairs["plain"].append(Pair(Speed(theirs.tokens, batch.seconds), theirs))
    settings = common_settings(arguments) | {
        "model": arguments.model,
        "threads": engine.threads,
        "problems": len(problems),
        "concurrency": places,
        "repeats": arguments.repeats,
        "elsewhere_cells_run_here": tools.again,
        "vllm": vllm_version(),
    }
    return Report("overhead", rounded(figures_of(pairs, batches)), TARGETS, settings, [_table(pairs)])


def figures_of(pairs: dict[str, list[Pair]], batches: Sequence[Batch]) -> dict[str, float]:
    """The figures of the report: medians over the pairs, and computed tokens of the hinted batches."""
    rollouts = [record["course"] for batch in batches for record in batch.records]
    fed = sum(stats["fed"] for stats in rollouts)
    bare = sum(
        record["counts"]["prompt_tokens"] + record["counts"]["model_tokens"] - 1
        for batch in batches
        for record in batch.records
    )
    figures = {"fed_ratio": fed / bare, "again_share": sum(stats["again"] for stats in rollouts) / fed}
    for name, some in pairs.items():
        figures[f"{name}_ratio"] = median(pair.ratio for pair in some)
        figures[f"{name}_per_second"] = median(pair.ours.rate for pair in some)
        figures[f"{name}_per_second_bare"] = median(pair.bare.rate for pair in some)
    return figures


def _table(pairs: dict[str, list[Pair]]) -> Table:
    titles = {
        "tokens": "hints and tools, all tokens",
        "decoded": "hints and tools, decoded tokens",
        "elsewhere": "the same, cells replayed",
        "plain": "no hints, no tools",
    }
    table = Table("what", title="overhead: medians", title_justify="left")
    for column in ("tokens", "ours, tokens/s", "bare, tokens/s", "ratio", "ratios"):
        table.add_column(column, justify="right")
    for name, some in pairs.items():
        table.add_row(
            titles[name],
            f"{some[0].ours.tokens:,}",
            f"{median(pair.ours.rate for pair in some):,.0f}",
            f"{median(pair.bare.rate for pair in some):,.0f}",
            f"{median(pair.ratio for pair in some):.3f}",
            ", ".join(f"{pair.ratio:.2f}" for pair in some),
        )
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    parser = new_parser("Compares tokens per second of the runner with bare AsyncLLM.")
    parser.add_argument("--problems", type=positive, metavar="N", help="problems (default: 500; with --quick 48)")
    parser.add_argument("--concurrency", type=positive, default=128, metavar="N", help="concurrency (default: 128)")
    parser.add_argument("--model", default="pocket", help="a model that vLLM runs (default: pocket)")
    parser.add_argument("--repeats", type=positive, default=1, help="runs of each kind (default: 1)")
    parser.add_argument("--unsafe-no-isolation", action="store_true", help="DANGEROUS: run the code as your own user")
    return run(parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
