"""A recipe as a set of stages, each one a step with its options, which a person could run as a command as well.

What a stage needs is named, so that stages which do not need each other run side by side. A stage that is done leaves
a mark; after whatever stopped the recipe, the stages without one are started again, and each of their commands goes
on from where it was. The folder::

    stages/NAME.options.json  the options of the stage's process
    stages/NAME.json          the step, its options and how long it took: written once the stage is done
    logs/NAME.log             what the process printed, over all its starts

A stage's options may not change: its mark, or the folder that the step itself keeps, refuses others.
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
_GRACE = 30.0  # seconds that a stopped command has to close what it opened
_TAIL = 4096  # bytes of a log that are looked at for its last lines


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of a recipe, with its options.

    Attributes:
        name: of its mark and its log.
        step: which one it is, as ``steps.find_step`` takes it.
        options: that decide what comes out, JSON-able, by name.
        after: names of the stages that must be done before.
        runtime: further options, which do not decide what comes out and so may change: how many at once, threads.
        launcher: what is put before ``-m start_agent``, in place of this Python: ``accelerate launch …``.
    """

    name: str
    step: str
    options: Mapping[str, Any]
    after: tuple[str, ...] = ()
    runtime: Mapping[str, Any] = field(default_factory=dict)
    launcher: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The command as a person would type it."""
        words = [*find_step(self.step).command, *command_words(self.options), *command_words(self.runtime)]
        return shlex.join([*self.launcher, "-m", "start_agent", *words] if self.launcher else ["start-agent", *words])

    def arguments(self, file: Path) -> list[str]:
        """The command as it is run, with its options in a JSON file."""
        return [*(self.launcher or (sys.executable,)), "-m", "start_agent", "step", self.step, str(file)]

    def same_as(self, mark: Mapping[str, Any]) -> bool:
        """Whether the mark of a stage that is done is of this one. Raises KeyError, TypeError for what is no mark."""
        step = find_step(self.step)
        try:
            if "command" in mark:  # of 0.1, which kept the command's words
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
    """How a stage stands. ``seconds`` are those of the start that finished it, or has been going on so far."""

    stage: Stage
    status: Status = "waiting"
    seconds: float = 0.0
    began: float | None = None
    earlier: bool = False
    """Done by an earlier start."""


@dataclass(slots=True)
class StageStates:
    """How all of them stand, in their order."""

    folder: Path
    stages: dict[str, StageState] = field(default_factory=dict)

    def last_line(self, name: str) -> str:
        """What the stage said last; empty where it has said nothing."""
        lines = _last_lines(self.folder / LOGS / f"{name}.log", 1)
        return lines[0] if lines else ""


Listener = Callable[[StageStates], None]
"""Hears whenever a stage begins or ends."""


async def run_stages(
    stages: Sequence[Stage], folder: Path, *, workers: int = 1, listener: Listener | None = None
) -> StageStates:
    """Run what is not done yet.

    Cancelling it stops the commands that run; so does its end by an error, and the death of this process.

    Args:
        stages: each after those that it needs.
        folder: the recipe's.
        workers: commands at once. Several get a share of the cores each, by ``OMP_NUM_THREADS`` where that is not set:
            as many threads as there are cores, several times over, wait for each other ten times as long as they work.
            A launcher shares out what it has by itself.
        listener: hears of beginnings and ends.

    Raises:
        RunDirectoryError: another recipe is at work in the folder, a done stage was another command, or the folder
            cannot be written.
        StageError: a command failed; says how, and what it said last.
        ValueError: a stage needs one that does not come before it.
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
        tell = listener or (lambda states: None)
        tell(states)
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
                tell(states)
                try:
                    await _run(state.stage, folder, os.environ if state.stage.launcher else shared)
                except StageError:
                    state.status = "failed"
                    raise
                finally:
                    state.seconds = time.monotonic() - state.began
                    tell(states)
                mark = {"step": state.stage.step, "options": dict(state.stage.options)}
                write_json(_mark(state.stage, folder), mark | {"seconds": round(state.seconds, 1)})
                state.status = "done"
                tell(states)
            finished[state.stage.name].set()

        try:
            async with asyncio.TaskGroup() as group:
                for state in states.stages.values():
                    if state.status != "done":
                        group.create_task(do(state))
        except BaseExceptionGroup as failed:  # the first has cancelled the others
            raise failed.exceptions[0] from None
        return states
    finally:
        os.close(lock)


def _check(stages: Sequence[Stage]) -> None:
    known: set[str] = set()
    for stage in stages:
        if missing := [need for need in stage.after if need not in known]:
            raise ValueError(f"the stage {stage.name} needs {missing[0]}, which does not come before it")
        if stage.name in known:
            raise ValueError(f"two stages are called {stage.name}")
        known.add(stage.name)


def _mark(stage: Stage, folder: Path) -> Path:
    return folder / STAGES / f"{stage.name}.json"


def _state(stage: Stage, folder: Path) -> StageState:
    """Whether it is done; raises where it was done with other options."""
    path = _mark(stage, folder)
    try:
        mark = json.loads(path.read_bytes())
        same, seconds = stage.same_as(mark), mark["seconds"]
    except FileNotFoundError:
        return StageState(stage)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"cannot read {path}: {error}; remove it to do the stage again") from error
    if not same:
        raise RunDirectoryError(
            f"in {folder} the stage {stage.name!r} was done with other options ({path}); now it would be "
            f"{stage.shown}. Name another --output-dir, or run with the old options"
        )
    return StageState(stage, "done", seconds, earlier=True)


async def _run(stage: Stage, folder: Path, environment: Mapping[str, str]) -> None:
    """Run the command to its end; stop it where this is cancelled."""
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
            start_new_session=True,  # a Ctrl-C comes to us; the command is told once, by us
            preexec_fn=partial(_die_with, os.getpid()),
        )
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                await asyncio.shield(_stop(process))
    if code:
        said = "; ".join(line.removeprefix("start-agent: ") for line in _last_lines(path, 1))
        raise StageError(
            f"the stage {stage.name!r} failed ({_how(code)}): {said or 'it said nothing'}. Its log is {path}; "
            "mend that and run the same command again"
        )


async def _stop(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_GRACE):
            await process.wait()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)  # a launcher's own children, too
        await process.wait()


def _die_with(parent: int) -> None:
    """In the child, before its program: it gets a SIGTERM when the process that started it dies, however that dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was dead already
        os._exit(1)


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _last_lines(path: Path, count: int) -> list[str]:
    """The last lines that say something; a carriage return ends a line too."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n")]
    return [line for line in lines if line][-count:]
