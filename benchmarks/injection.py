"""Cost of insertions under vLLM: recomputed tokens, and time compared with uninterrupted decoding.

Many concurrent traces, each with the same number of decoded tokens and 0, 1, 3 or 6 evenly spaced insertions of 24
tokens. At each insertion the request ends and the next one resubmits the trace, as in solving, but without tools. A
stop checker reads all tokens, as in solving; turns end by their length, so that all are equal.

* ``reprefilled_minus_block``: the worst insertion of all: computed tokens other than the inserted and the decoded ones,
  minus the cache's block size.
* ``overhead_K``: wall time with K insertions divided by that without, at the larger number of traces, for the same
  number of decoded tokens. The inserted tokens, which are prefilled and attended to, are extra.
* ``overhead_6_same_context``: the same, divided by uninterrupted decoding from a prompt that is longer by half of the
  tokens of 6 insertions. Both sides decode the same number of tokens from contexts of the same mean length; the
  difference is the prefill of the insertions, the recomputed tokens, and the six requests.
* ``overhead_6_all_tokens``: the same, divided by uninterrupted decoding of as many tokens as the trace has, including
  the inserted ones, as if the model had generated them.
* ``cache_off_ratio_6``: wall time with 6 insertions without the prefix cache divided by that with it, at the smaller
  number of traces.

    python -m benchmarks.injection [--quick] [--model pocket]
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: what is beside this one must not be taken for top-level modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import asyncio
import math
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from rich.table import Table

from benchmarks.batches import vllm_version
from benchmarks.report import Report, Target, common_settings, new_parser, positive, rounded, run, say
from start_agent.engines.base import Sampling, TurnRequest
from start_agent.engines.vllm import VLLMEngine, VLLMOptions
from start_agent.errors import InputError
from start_agent.models import resolve
from start_agent.pocket import held_out
from start_agent.tokens.markers import Matcher, State
from start_agent.tokens.stopping import NEVER, StopChecker

TARGETS: dict[str, Target] = {"reprefilled_minus_block": ("<=", 1), "overhead_6": ("<=", 1.15)}

INSERTIONS = (0, 1, 3, 6)
_STEP = math.lcm(*(k + 1 for k in INSERTIONS))
_DECODED = 420  # decoded tokens per trace; divisible, so that all turns of a trace are equally long
_DECODED_QUICK = 168
_PROMPT_TOKENS = 64
_INSERTED_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Run:
    """Concurrent traces: total time, and the recomputed tokens of each insertion."""

    seconds: float
    decoded: int
    again: list[int]

    @property
    def speed(self) -> float:
        """Decoded tokens per second."""
        return self.decoded / self.seconds


class Subject:
    """The engine under test. Each run has new prompts, so that nothing of them is cached."""

    def __init__(self, engine: VLLMEngine, seed: int) -> None:
        self.engine = engine
        self._matcher = Matcher(engine.tokenizer)
        self._questions = [engine.tokenizer.encode(problem.question) for problem in held_out(500, seed)]
        self._inserted = self._piece(engine.tokenizer.encode(" Let me check this in another way."), _INSERTED_TOKENS)
        self._runs = 0

    async def grow(self, traces: int, insertions: int, decoded: int, longer: int = 0) -> Run:
        """Run all traces concurrently; ``longer`` is the number of tokens by which prompts are extended."""
        self._runs += 1
        begun = time.perf_counter()
        results = await asyncio.gather(*(self._trace(number, insertions, decoded, longer) for number in range(traces)))
        return Run(time.perf_counter() - begun, traces * decoded, [tokens for again in results for tokens in again])

    async def _trace(self, number: int, insertions: int, decoded: int, longer: int) -> list[int]:
        name = f"run {self._runs}, trace {number}"
        ids = self._piece(
            [*self.engine.tokenizer.encode(name + ": "), *self._questions[number]], _PROMPT_TOKENS + longer
        )
        length, again = decoded // (insertions + 1), list[int]()
        new_checker = partial(StopChecker, self._matcher, State(), NEVER)
        for turn_number in range(insertions + 1):
            turn = await self.engine.generate(TurnRequest(name, ids, Sampling(), 0, length, new_checker))
            assert len(turn.token_ids) == length
            if turn_number:
                again.append(turn.usage.computed_tokens - _INSERTED_TOKENS - (length - 1))
            ids = [*ids, *turn.token_ids, *self._inserted]
        await self.engine.release(name)
        return again

    def _piece(self, token_ids: Sequence[int], length: int) -> list[int]:
        return [token_ids[place % len(token_ids)] for place in range(length)]


async def measure(arguments: Namespace) -> Report:
    """Measure with the prefix cache, then without it."""
    counts = (16,) if arguments.quick else (64, 256)
    decoded = arguments.decoded or (_DECODED_QUICK if arguments.quick else _DECODED)
    if decoded % _STEP:
        raise InputError(f"--decoded {decoded} must be a multiple of {_STEP}, so that all turns are equally long")
    model = resolve(arguments.model).location
    runs: dict[tuple[int, int], list[Run]] = {(count, k): [] for count in counts for k in INSERTIONS}
    longer, more = list[Run](), list[Run]()
    async with VLLMEngine(model, VLLMOptions(max_num_seqs=max(counts), threads=arguments.threads)) as engine:
        subject, block = Subject(engine, arguments.seed), engine.block_size
        await subject.grow(counts[0], 1, 28)  # warm-up
        for repeat in range(arguments.repeats):
            for count, k in runs:
                say(f"{count} traces, {k} insertions, repeat {repeat + 1}")
                runs[count, k].append(await subject.grow(count, k, decoded))
            say(f"{max(counts)} traces, a longer prompt, repeat {repeat + 1}")
            longer.append(await subject.grow(max(counts), 0, decoded, INSERTIONS[-1] * _INSERTED_TOKENS // 2))
            more.append(await subject.grow(max(counts), 0, decoded + INSERTIONS[-1] * _INSERTED_TOKENS))
    async with VLLMEngine(
        model, VLLMOptions(max_num_seqs=counts[0], threads=arguments.threads, prefix_caching=False)
    ) as engine:
        subject = Subject(engine, arguments.seed)
        await subject.grow(counts[0], 1, 28)
        say(f"{counts[0]} traces, 6 insertions, without the cache")
        off = [await subject.grow(counts[0], 6, decoded) for _ in range(arguments.repeats)]
    figures = figures_of(runs, longer, more, off, block)
    settings = common_settings(arguments) | {
        "model": arguments.model,
        "threads": engine.threads,
        "traces": list(counts),
        "repeats": arguments.repeats,
        "block_size": block,
        "decoded": decoded,
        "prompt_tokens": _PROMPT_TOKENS,
        "inserted_tokens": _INSERTED_TOKENS,
        "vllm": vllm_version(),
    }
    return Report("injection", rounded(figures), TARGETS, settings, [_table(runs, longer, more, off)])


def figures_of(
    runs: dict[tuple[int, int], list[Run]], longer: list[Run], more: list[Run], off: list[Run], block: int
) -> dict[str, float]:
    """The figures of the report: medians of times, and the worst insertion."""
    small, large = min(count for count, _ in runs), max(count for count, _ in runs)
    worst = max(tokens for some in runs.values() for one in some for tokens in one.again)
    figures = {"reprefilled_minus_block": float(worst - block)}
    for k in INSERTIONS[1:]:
        # Ratios of consecutive runs, since the load of the machine may change over time.
        pairs = zip(runs[large, k], runs[large, 0], strict=True)
        figures[f"overhead_{k}"] = median(one.seconds / plain.seconds for one, plain in pairs)
    for name, others in (("same_context", longer), ("all_tokens", more)):
        both = zip(runs[large, 6], others, strict=True)
        figures[f"overhead_6_{name}"] = median(one.seconds / plain.seconds for one, plain in both)
    figures["cache_off_ratio_6"] = median(one.seconds for one in off) / median(one.seconds for one in runs[small, 6])
    figures["tokens_per_second_0"] = median(one.speed for one in runs[large, 0])
    return figures


def _table(runs: dict[tuple[int, int], list[Run]], longer: list[Run], more: list[Run], off: list[Run]) -> Table:
    table = Table("traces", "insertions", title="injection: medians", title_justify="left")
    for column in ("seconds", "decoded tokens/s", "prefilled again per insertion, mean", "worst"):
        table.add_column(column, justify="right")
    small, large = min(count for count, _ in runs), max(count for count, _ in runs)
    for label, count, k, some in [
        *(("", count, k, some) for (count, k), some in runs.items()),
        (" (longer prompt)", large, 0, longer),
        (" (all tokens decoded)", large, 0, more),
        (" (no cache)", small, 6, off),
    ]:
        again = [tokens for one in some for tokens in one.again]
        table.add_row(
            str(count),
            f"{k}{label}",
            f"{median(one.seconds for one in some):.2f}",
            f"{median(one.speed for one in some):,.0f}",
            f"{sum(again) / len(again):.1f}" if again else "",
            str(max(again)) if again else "",
        )
    return table


def parser() -> ArgumentParser:
    """The parser of the benchmark's options."""
    options = new_parser(__doc__ or "")
    options.add_argument("--model", default="pocket", help="a model that vLLM runs (default: pocket)")
    options.add_argument(
        "--decoded",
        type=positive,
        metavar="N",
        help=f"decoded tokens per trace, a multiple of {_STEP} (default: {_DECODED}, quick: {_DECODED_QUICK})",
    )
    options.add_argument("--repeats", type=positive, default=1, help="runs of each kind (default: 1)")
    return options


if __name__ == "__main__":
    sys.exit(run(parser(), measure))
