"""Runs a recipe as a set of stages: each is a step with its options, and could also be run as a command.

Stages declare their dependencies, so that independent stages run concurrently. A finished stage leaves a marker file.
When an interrupted recipe is run again, stages without a marker are started again, and their commands resume. The
folder::

    stages/NAME.options.json  the options of the stage's process
    stages/NAME.json          the marker: the step, its options and duration, written when the stage is done
    logs/NAME.log             the output of the process, over all starts

The options of a stage must not change: its marker, or the folder of the step itself, rejects others.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from start_agent.engines.affinity import THREADS_VARIABLE
from start_agent.errors import ConfigError, RunDirectoryError, StageError
from start_agent.fields import command_words, parsed_words
from start_agent.files import lock_folder, write_json
from start_agent.recipes.steps import find_step

STAGES, LOGS = "stages", "logs"

_PR_SET_PDEATHSIG = 1  # prctl(2)
_GRACE = 30.0  # seconds between SIGTERM and SIGKILL
_TAIL = 4096  # bytes of a log that are read for its last lines


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of a recipe, with its options.

    Attributes:
        name: name of the stage, its marker and its log.
        step: name of the step, for ``steps.find_step``.
        options: options that affect the result, JSON-able, by name.
        after: names of the stages that it depends on.
        runtime: options that do not affect the result and so may change, such as concurrency and threads.
        launcher: command before ``-m start_agent``, instead of this Python: ``accelerate launch …``.
    """

    name: str
    step: str
    options: Mapping[str, Any]
    after: tuple[str, ...] = ()
    runtime: Mapping[str, Any] = field(default_factory=dict)
    launcher: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The command as a user would type it."""
        words = [*find_step(self.step).command, *command_words(self.options), *command_words(self.runtime)]
        return shlex.join([*self.launcher, "-m", "start_agent", *words] if self.launcher else ["start-agent", *words])

    def arguments(self, file: Path) -> list[str]:
        """The command as it is run, with its options in a JSON file."""
        return [*(self.launcher or (sys.executable,)), "-m", "start_agent", "step", self.step, str(file)]

    def same_as(self, mark: Mapping[str, Any]) -> bool:
        """Whether a marker belongs to this stage with these options. Raises KeyError, TypeError if it is malformed."""
        step = find_step(self.step)
        try:
            if "command" in mark:  # of version 0.1, which stored the words of the command
                count, words = len(step.command), list(map(str, mark["command"]))
                kind, meant = tuple(words[:count]) == step.command, step.of_0_1(parsed_words(words[count:]))
            else:
                kind, meant = mark["step"] == self.step, [mark["options"]]
            return kind and any(step.config(options) == step.config(self.options) for options in meant)
        except ConfigError:
            return False


Status = Literal["waiting", "running", "done", "failed"]


@dataclass(slots=True)
class StageState:
    """The state of a stage. ``seconds`` is the duration of its last start."""

    stage: Stage
    status: Status = "waiting"
    seconds: float = 0.0
    began: float | None = None
    earlier: bool = False
    """Whether it was done by an earlier run of the recipe."""


@dataclass(slots=True)
class StageStates:
    """The states of all stages, in their order."""

    folder: Path
    stages: dict[str, StageState] = field(default_factory=dict)

    def last_line(self, name: str) -> str:
        """The last line of a stage's log; empty if there is none."""
        lines = _last_lines(self.folder / LOGS / f"{name}.log", 1)
        return lines[0] if lines else ""


Listener = Callable[[StageStates], None]
"""Called whenever a stage begins or ends."""


async def run_stages(
    stages: Sequence[Stage], folder: Path, *, workers: int = 1, listener: Listener | None = None
) -> StageStates:
    """Run the stages that are not done yet.

    Running commands are stopped when this is cancelled, when it fails, and when this process dies.

    Args:
        stages: all stages, in an order that respects their dependencies.
        folder: the folder of the recipe.
        workers: maximum concurrent commands. With several, each gets a share of the CPU cores through
            ``OMP_NUM_THREADS``, unless that is set: oversubscribed threads spend ten times as long waiting as working.
            A launcher divides the cores itself.
        listener: called whenever a stage begins or ends.

    Raises:
        RunDirectoryError: another process uses the folder, a finished stage had other options, or the folder cannot
            be written.
        StageError: a command failed; the message has its exit code and last line.
        ValueError: a stage depends on one that does not precede it.
    """
    _check(stages)
    try:
        for name in (STAGES, LOGS):
            (folder / name).mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder)
    except OSError as error:
        raise RunDirectoryError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        states = StageStates(folder, {stage.name: _state(stage, folder) for stage in stages})
        notify = listener or (lambda states: None)
        notify(states)
        places = asyncio.Semaphore(workers)
        share = max(len(os.sched_getaffinity(0)) // workers, 1)
        shared = ({THREADS_VARIABLE: str(share)} if workers > 1 else {}) | os.environ
        finished = {name: asyncio.Event() for name in states.stages}
        for name, state in states.stages.items():
            if state.status == "done":
                finished[name].set()

        async def do(state: StageState) -> None:
            for need in state.stage.after:
                await finished[need].wait()
            async with places:
                state.status, state.began = "running", time.monotonic()
                notify(states)
                try:
                    await _run(state.stage, folder, os.environ if state.stage.launcher else shared)
                except StageError:
                    state.status = "failed"
                    raise
                finally:
                    state.seconds = time.monotonic() - state.began
                    notify(states)
                mark = {"step": state.stage.step, "options": dict(state.stage.options)}
                write_json(_mark(state.stage, folder), mark | {"seconds": round(state.seconds, 1)})
                state.status = "done"
                notify(states)
            finished[state.stage.name].set()

        try:
            async with asyncio.TaskGroup() as group:
                for state in states.stages.values():
                    if state.status != "done":
                        group.create_task(do(state))
        except BaseExceptionGroup as failed:  # the first error has cancelled the other tasks
            raise failed.exceptions[0] from None
        return states
    finally:
        os.close(lock)


def _check(stages: Sequence[Stage]) -> None:
    known: set[str] = set()
    for stage in stages:
        if missing := [need for need in stage.after if need not in known]:
            raise ValueError(f"the stage {stage.name} depends on {missing[0]}, which does not precede it")
        if stage.name in known:
            raise ValueError(f"two stages are called {stage.name}")
        known.add(stage.name)


def _mark(stage: Stage, folder: Path) -> Path:
    return folder / STAGES / f"{stage.name}.json"


def _state(stage: Stage, folder: Path) -> StageState:
    """The state of a stage before the run. Raises RunDirectoryError if it was done with other options."""
    path = _mark(stage, folder)
    try:
        mark = json.loads(path.read_bytes())
        same, seconds = stage.same_as(mark), mark["seconds"]
    except FileNotFoundError:
        return StageState(stage)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"cannot read {path}: {error}; remove it to run the stage again") from error
    if not same:
        raise RunDirectoryError(
            f"in {folder} the stage {stage.name!r} was done with other options ({path}); now it would be "
            f"{stage.shown}. Choose another --output-dir, or run with the old options"
        )
    return StageState(stage, "done", seconds, earlier=True)


async def _run(stage: Stage, folder: Path, environment: Mapping[str, str]) -> None:
    """Run the command until it ends; stop it when this is cancelled."""
    path, options = folder / LOGS / f"{stage.name}.log", folder / STAGES / f"{stage.name}.options.json"
    write_json(options, {**stage.options, **stage.runtime})
    with path.open("ab") as log:
        log.write(f"$ {stage.shown}\n".encode())
        log.flush()
        process = await asyncio.create_subprocess_exec(
            *stage.arguments(options),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches only us, and we stop the command once
            preexec_fn=partial(_die_with, os.getpid()),
        )
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                await asyncio.shield(_stop(process))
    if code:
        last = "; ".join(line.removeprefix("start-agent: ") for line in _last_lines(path, 1))
        raise StageError(
            f"the stage {stage.name!r} failed ({_how(code)}): {last or 'no output'}. Its log is {path}; "
            "fix the problem and run the same command again"
        )


async def _stop(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_GRACE):
            await process.wait()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)  # including children of a launcher
        await process.wait()


def _die_with(parent: int) -> None:
    """In the child, before exec: request a SIGTERM for when the parent process dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it has died already
        os._exit(1)


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _last_lines(path: Path, count: int) -> list[str]:
    """The last non-empty lines of a log; a carriage return also ends a line."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n")]
    return [line for line in lines if line][-count:]
