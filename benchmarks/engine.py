"""Cost of the transformers engine, compared with transformers' own ``generate`` and with prefilling again.

Two comparisons, each in pairs of consecutive runs; a figure is the median of the pairs' ratios.

* ``ratio_generate_*``: tokens per second of the engine divided by those of ``generate``, on the same prompts and
  weights, for a fixed number of new tokens; end-of-sequence tokens are ignored on both sides.
* ``resubmit_*_ratio_*``: traces that grow in turns with an insertion after each. The engine keeps the cache of a
  trace; the other side releases the trace before each turn, so that everything is prefilled again. Computed tokens and
  time of stop-and-resubmit, divided by those of the engine.

    python -m benchmarks.engine [--quick] [--model pocket] [--threads N]
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: what is beside this one must not be taken for top-level modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks.report import Report, Target, common_settings, new_parser, positive, rounded, run, say
from start_agent.engines.base import Sampling, TurnRequest
from start_agent.engines.scripted import byte_tokenizer
from start_agent.engines.transformers import TransformersEngine, TransformersOptions
from start_agent.models import resolve
from start_agent.pocket import held_out, weights_path
from start_agent.tokens.markers import Matcher, State
from start_agent.tokens.stopping import NEVER, StopChecker

TARGETS: dict[str, Target] = {"ratio_generate_1": (">=", 0.9), "ratio_generate_64": (">=", 0.9)}

CONTEXTS = {"256": 256, "1k": 1024, "2k": 2048}
"""Tokens in a trace before its first turn, by their name in the figures."""

_PROMPT_TOKENS = 64
_INSERTED_TOKENS = 24
_INSERTIONS = 6
_TURN_TOKENS = 64
_CONTEXT = 4096  # length of the longest trace, rounded up


@dataclass(frozen=True, slots=True)
class Run:
    """One side of a pair: its time and the ids that it generated."""

    seconds: float
    written: list[list[int]]
    fed: int = 0


class Subject:
    """The engine under test, driven turn by turn."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.engine = engine
        self._matcher = Matcher(engine.tokenizer)

    def turn(self, name: str, token_ids: Sequence[int], max_tokens: int) -> TurnRequest:
        """A greedy turn of exactly ``max_tokens``."""
        new_checker = partial(StopChecker, self._matcher, State(), NEVER)
        return TurnRequest(name, tuple(token_ids), Sampling(), 0, max_tokens, new_checker)

    async def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Run:
        """Run all prompts at once, one turn each."""
        begun = time.perf_counter()
        names = [f"generate {index}" for index in range(len(prompts))]
        for name in names:  # of the last run; timed, since releasing is part of the work, and no cache may be reused
            await self.engine.release(name)
        turns = await asyncio.gather(
            *(
                self.engine.generate(self.turn(name, prompt, new_tokens))
                for name, prompt in zip(names, prompts, strict=True)
            )
        )
        return Run(time.perf_counter() - begun, [list(turn.token_ids) for turn in turns])

    async def grow(self, prompts: Sequence[Sequence[int]], insertions: Sequence[Sequence[int]], *, keep: bool) -> Run:
        """Grow traces concurrently, with or without keeping their caches between turns."""
        begun = time.perf_counter()
        grown = await asyncio.gather(
            *(self._grow(f"grow {index}", prompt, insertions, keep) for index, prompt in enumerate(prompts))
        )
        return Run(time.perf_counter() - begun, [ids for ids, _ in grown], sum(fed for _, fed in grown))

    async def _grow(
        self, name: str, prompt: Sequence[int], insertions: Sequence[Sequence[int]], keep: bool
    ) -> tuple[list[int], int]:
        ids, written, fed = list(prompt), list[int](), 0
        for inserted in [*insertions, ()]:
            turn = await self.engine.generate(self.turn(name, ids, _TURN_TOKENS))
            fed += turn.usage.computed_tokens
            written += turn.token_ids
            ids += [*turn.token_ids, *inserted]
            if not keep:
                await self.engine.release(name)
        await self.engine.release(name)
        return written, fed


class Reference:
    """Transformers' own ``generate`` on the same weights, in its own thread like the engine."""

    def __init__(self, folder: Path, dtype: str, device: str, threads: int) -> None:
        import torch
        import transformers

        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
        self._model = loaded.to(device).eval()
        # Otherwise `generate` would use the end-of-sequence token of the checkpoint's own settings.
        self._model.generation_config = transformers.GenerationConfig(pad_token_id=0)
        self._thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,))

    async def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Run:
        """Run all prompts, which are equally long, in one batch."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._generate, prompts, new_tokens)

    def _generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Run:
        import torch

        begun = time.perf_counter()
        with torch.inference_mode():
            ids = torch.tensor(prompts, device=self._model.device)
            rows = self._model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, do_sample=False
            )
        written = rows[:, ids.shape[1] :].tolist()
        return Run(time.perf_counter() - begun, written)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Pairs of runs: of the engine and of its reference."""

    title: str
    pairs: list[tuple[Run, Run]]

    @property
    def time_ratios(self) -> list[float]:
        """Seconds of the reference divided by seconds of the engine: above 1, the engine is faster."""
        return [theirs.seconds / ours.seconds for ours, theirs in self.pairs]

    @property
    def same(self) -> float:
        """Share of identical sequences; the others may differ because of rounding at near ties."""
        sides = [
            (one, other) for ours, theirs in self.pairs for one, other in zip(ours.written, theirs.written, strict=True)
        ]
        return sum(one == other for one, other in sides) / len(sides)

    def speeds(self) -> tuple[float, float]:
        """Medians of generated tokens per second, of the engine and of the reference."""
        here, there = (
            median(sum(map(len, side.written)) / side.seconds for side in sides)
            for sides in zip(*self.pairs, strict=True)
        )
        return here, there


async def against_generate(
    subject: Subject, reference: Reference, prompts: Sequence[Sequence[int]], new_tokens: int, repeats: int
) -> Comparison:
    """Measure pairs on the same prompts, after one pair as warm-up."""
    pairs = []
    for _ in range(repeats + 1):
        pairs.append((await subject.generate(prompts, new_tokens), await reference.generate(prompts, new_tokens)))
        assert all(len(ids) == new_tokens for side in pairs[-1] for ids in side.written), "a side stopped early"
    for index in range(len(prompts)):
        await subject.engine.release(f"generate {index}")
    return Comparison(f"generate, {len(prompts)} sequences", pairs[1:])


async def against_resubmit(
    subject: Subject, name: str, prompts: Sequence[Sequence[int]], insertions: Sequence[Sequence[int]], repeats: int
) -> Comparison:
    """Measure pairs on the same traces, after a run in which the engine allocates its cache."""
    pairs = []
    await subject.grow(prompts, insertions[:1], keep=True)
    for _ in range(repeats):
        kept = await subject.grow(prompts, insertions, keep=True)
        pairs.append((kept, await subject.grow(prompts, insertions, keep=False)))
    return Comparison(f"resubmit, contexts of {name}", pairs)


def lay_out(model: str, folder: Path) -> str:
    """Put a model with a context long enough for the longest trace into the folder; returns its description.

    An extended context costs the usual time, although the generated text is useless.
    """
    if model == "random" or (model == "pocket" and not (weights_path() / "config.json").is_file()):
        return _lay_out_random(folder)
    shutil.copytree(resolve(model).location, folder, dirs_exist_ok=True)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["max_position_embeddings"] = max(_CONTEXT, config["max_position_embeddings"])
    path.write_text(json.dumps(config), encoding="utf-8")
    return f"{model}, its context stretched to {config['max_position_embeddings']}"


def _lay_out_random(folder: Path) -> str:
    """A Llama of the pocket reasoner's shape with random weights, and a vocabulary of bytes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=3,
        max_position_embeddings=_CONTEXT,
        initializer_range=0.2,  # large, so that the text does not repeat one token endlessly
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer().backend).save_pretrained(folder)
    return "random weights in the pocket reasoner's shape"


def cut(token_ids: Sequence[int], count: int, length: int, start: int = 0) -> list[list[int]]:
    """``count`` pieces of ``length`` ids of a text, which is repeated as needed."""
    size = len(token_ids)
    return [[token_ids[(start + piece * length + i) % size] for i in range(length)] for piece in range(count)]


async def measure(arguments: argparse.Namespace) -> Report:
    """Run both comparisons on one engine."""
    import torch

    quick = arguments.quick
    repeats = arguments.repeats or (3 if quick else 7)
    resubmit_repeats = arguments.repeats or (2 if quick else 5)
    new_tokens, traces = (64, 2) if quick else (192, 8)
    comparisons: dict[str, Comparison] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = lay_out(arguments.model, folder)
        # Nothing is reused but a trace's own cache: that is what is compared.
        options = TransformersOptions(
            device=arguments.device,
            dtype=arguments.dtype,
            threads=arguments.threads,
            max_num_seqs=64,
            prefix_caching=False,
        )
        async with TransformersEngine(str(folder), options) as engine:
            subject = Subject(engine)
            await subject.generate([[0]], 1)  # the first turn sets torch's number of threads
            reference = Reference(folder, arguments.dtype, arguments.device, torch.get_num_threads())
            text = engine.tokenizer.encode("\n".join(problem.question for problem in held_out(500, arguments.seed)))
            for count in (1, 64):
                say(f"generate, {count} sequences")
                comparisons[f"generate_{count}"] = await against_generate(
                    subject, reference, cut(text, count, _PROMPT_TOKENS), new_tokens, repeats
                )
            insertions = cut(text, _INSERTIONS, _INSERTED_TOKENS)
            for label, context in CONTEXTS.items():
                say(f"resubmit, contexts of {label}")
                comparisons[f"resubmit_{label}"] = await against_resubmit(
                    subject, label, cut(text, traces, context, start=7), insertions, resubmit_repeats
                )
    settings = common_settings(arguments) | {
        "model": model,
        "device": arguments.device,
        "dtype": arguments.dtype,
        "generate": {"repeats": repeats, "prompt_tokens": _PROMPT_TOKENS, "new_tokens": new_tokens},
        "resubmit": {
            "repeats": resubmit_repeats,
            "traces": traces,
            "insertions": _INSERTIONS,
            "inserted_tokens": _INSERTED_TOKENS,
            "turn_tokens": _TURN_TOKENS,
        },
    }
    return Report("engine", rounded(figures_of(comparisons)), TARGETS, settings, [_table(comparisons)])


def figures_of(comparisons: dict[str, Comparison]) -> dict[str, float]:
    """The figures of the report: medians of ratios, and shares of identical sequences."""
    figures = {}
    for name, comparison in comparisons.items():
        ratio = median(comparison.time_ratios)
        if name.startswith("generate"):
            figures[f"ratio_{name}"] = ratio
            figures[f"tokens_per_second_{name}"] = comparison.speeds()[0]
        else:
            kind, label = name.split("_")
            ours, theirs = comparison.pairs[0]
            figures[f"{kind}_tokens_ratio_{label}"] = theirs.fed / ours.fed
            figures[f"{kind}_time_ratio_{label}"] = ratio
        figures[f"same_text_{name}"] = comparison.same
    return figures


def _table(comparisons: dict[str, Comparison]) -> Table:
    table = Table("against", title="engine: medians of pairs", title_justify="left")
    for column in (
        "ours, tokens/s",
        "theirs, tokens/s",
        "ours / theirs",
        "pairs from ... to",
        "fed, theirs / ours",
        "same text",
    ):
        table.add_column(column, justify="right")
    for comparison in comparisons.values():
        ours, theirs = comparison.speeds()
        ratios = comparison.time_ratios
        one, other = comparison.pairs[0]
        table.add_row(
            comparison.title,
            f"{ours:,.0f}",
            f"{theirs:,.0f}",
            f"{median(ratios):.2f}",
            f"{min(ratios):.2f} ... {max(ratios):.2f}",
            f"{other.fed / one.fed:.2f}" if one.fed else "",
            f"{comparison.same:.0%}",
        )
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    parser = new_parser("Compares the transformers engine with transformers' generate, and with prefilling again.")
    parser.add_argument("--model", default="pocket", help="'pocket', 'random' or a local folder (default: pocket)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where both sides run (default: cpu)")
    parser.add_argument(
        "--dtype", default="float32", choices=["float32", "bfloat16"], help="of the weights (default: float32)"
    )
    parser.add_argument(
        "--repeats", type=positive, metavar="N", help="pairs of runs (default: 7 and 5; with --quick 3 and 2)"
    )
    return run(parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
