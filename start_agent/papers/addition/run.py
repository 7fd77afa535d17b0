"""Runs the experiment: the loop with and without rationalization, and a baseline without scratchpad, from one base."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from start_agent.batch.store import RunDirectory, read_records, record_key
from start_agent.errors import MissingExtraError
from start_agent.fields import deciding
from start_agent.files import model_digest
from start_agent.papers.addition.options import AdditionOptions
from start_agent.papers.addition.text import draw
from start_agent.problem import Problem
from start_agent.recipes.star.loop import refuse_overlap, run_star
from start_agent.recipes.star.store import DEV, HELD_OUT, Iteration
from start_agent.seeds import derive_seed
from start_agent.versions import versions

if TYPE_CHECKING:
    from start_agent.papers.addition.learner import AdditionLearner

VARIANTS = {"with": True, "without": False}
"""Variants of the loop: folder name → whether it rationalizes."""

_POOL = 10  # size of the pool of problems, relative to the number drawn per iteration; 5 in the paper

Listener = Callable[[str, Iteration], None]


def shipped_base() -> Path:
    """The folder of the base that ships with the package, made by ``make_base`` with its defaults."""
    return Path(str(resources.files("start_agent.papers.addition"))) / "weights"


def run_addition(
    output_dir: Path,
    quick: bool = False,
    seed: int = 0,
    options: AdditionOptions | None = None,
    listener: Listener = lambda variant, iteration: None,
) -> dict[str, Any]:
    """Run the experiment, or its missing part, and write ``report.json``, ``report.md`` and ``addition.png``.

    Args:
        output_dir: a new folder, or that of the same run.
        quick: run a smoke test of about a minute, with too few problems for meaningful results.
        seed: see ``AdditionOptions``; ignored if ``options`` is given.
        options: all options, instead of ``quick`` and ``seed``.
        listener: called with the variant and each finished iteration.

    Returns the report, JSON-able.

    Raises:
        RunDirectoryError: the folder has a run with another configuration.
        DataError: a training problem is also an evaluation problem.
        MissingExtraError: the packages for training are not installed.
    """
    from start_agent.papers.addition.learner import AdditionLearner
    from start_agent.papers.addition.report import build_report, write_report

    options = options or (AdditionOptions.quick(seed) if quick else AdditionOptions(seed=seed))
    begun, found = time.monotonic(), versions()
    decisive = deciding(options)
    with RunDirectory.open(output_dir, {"addition": decisive}, versions=found) as top:
        _set_threads(options.threads)
        learner = AdditionLearner(str(_base(output_dir, options)), options.training())
        problems, evaluations = draw_sets(options)
        for name, rationalize in VARIANTS.items():
            loop = options.loop(rationalize=rationalize)
            configuration = {"loop": loop.model_dump(mode="json"), "addition": decisive}
            with RunDirectory.open(output_dir / name, configuration, versions=found) as directory:
                run_star(learner, problems, evaluations, loop, directory, partial(listener, name))
        direct = _direct(top, learner, problems, evaluations[HELD_OUT], options)
        report = build_report(output_dir, options, evaluations[HELD_OUT], direct, learner)
        report |= {"base": model_digest(Path(learner.base)), "versions": found}
        report |= {"seconds_of_this_start": round(time.monotonic() - begun, 1)}
        write_report(report, output_dir)
    return report


def draw_sets(options: AdditionOptions) -> tuple[list[Problem], dict[str, list[Problem]]]:
    """The training problems, and the evaluation problems by set, which never overlap; see ``text.draw``."""
    problems = list(islice(draw(derive_seed(options.seed, "train"), "train"), _POOL * options.problems))
    evaluations = {
        DEV: list(islice(draw(derive_seed(options.seed, "dev"), "dev"), options.evaluated // 2)),
        HELD_OUT: list(islice(draw(derive_seed(options.seed, "held-out"), "held-out"), options.evaluated)),
    }
    refuse_overlap(problems, evaluations)
    return problems, evaluations


def _base(output_dir: Path, options: AdditionOptions) -> Path:
    """The folder of the base: the one that ships, or one made in the run's folder."""
    if not options.make_base:
        return shipped_base()
    from start_agent.papers.addition.base import BaseOptions, make_base

    folder = output_dir / "base"
    if not folder.exists():
        unfinished = output_dir / "base.new"
        make_base(unfinished, BaseOptions())
        unfinished.replace(folder)
    return folder


def _direct(
    directory: RunDirectory,
    learner: AdditionLearner,
    problems: Sequence[Problem],
    held_out: Sequence[Problem],
    options: AdditionOptions,
) -> list[dict[str, Any]]:
    """The baseline: the base, fine-tuned on only the answers of all problems that the loop draws from.

    Trained once with the steps of the last iteration, and once with those of all iterations together, which is more
    than any model of the loop gets.
    """
    loop = options.loop(rationalize=False)
    counts = [loop.steps(number) for number in range(1, loop.iterations + 1)]
    for steps in (counts[-1], sum(counts)):
        key = record_key("direct", steps)
        if bytes.fromhex(key) in directory.done:
            continue
        folder = directory.path / f"direct-{steps}"
        seed = derive_seed(options.seed, f"direct {steps}")
        learner.fine_tune(learner.base, learner.direct_rows(problems), steps=steps, seed=seed, output=folder)
        written = learner.answer_directly(str(folder), held_out)
        solved = {problem.key: found.right for problem, found in zip(held_out, written, strict=True)}
        directory.append({"key": key, "steps": steps, "solved": solved})
    return sorted(read_records(directory.path), key=lambda record: int(record["steps"]))


def _set_threads(threads: int) -> None:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(error.name or "torch", "train") from error
    torch.set_num_threads(threads)
