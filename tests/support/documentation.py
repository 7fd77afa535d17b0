"""The code blocks of a Markdown page: parsing them, and running them as a reader would.

Blocks of ``console`` (lines with ``$`` and the output that follows), ``sh`` and ``python`` are run, in the order of the
page, in one folder; Python blocks as programs of their own. ``<!-- skip: reason -->`` before a block leaves it out,
``<!-- file: NAME -->`` writes it to a file of the folder in place of running it.
The output that a ``console`` block shows is compared: its lines come in this order, and ``...`` stands for any number
of lines.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support import warm

RUNNABLE = ("console", "sh", "python")

_BLOCK = re.compile(
    r"(?:^<!-- (?:skip: *(?P<skip>.*?)|file: *(?P<file>\S+)) *-->\n+)?"
    r"^(?P<fence>`{3,})(?P<language>\w*)\n(?P<text>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code. ``skip`` is the reason why it is not run, ``file`` the file that it is; else None."""

    language: str
    text: str
    line: int
    skip: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Command:
    """A command line for bash, and the lines of output shown for it; none where it is shown without."""

    text: str
    shown: tuple[str, ...] = ()


def blocks_of(page: str) -> list[Block]:
    """All fenced blocks that could be run."""
    return [
        Block(
            found["language"],
            found["text"],
            page.count("\n", 0, found.start("fence")) + 1,
            found["skip"],
            found["file"],
        )
        for found in _BLOCK.finditer(page)
        if found["language"] in RUNNABLE or found["file"]
    ]


def commands_of(block: Block) -> list[Command]:
    """The commands of a ``console`` or ``sh`` block."""
    if block.language == "sh":
        return [Command(block.text)]
    commands: list[Command] = []
    lines = iter(block.text.splitlines())
    for line in lines:
        if line.startswith("$ "):
            text = line[2:]
            while text.endswith("\\"):
                text += "\n" + next(lines)
            commands.append(Command(text))
        elif commands:
            commands[-1] = Command(commands[-1].text, (*commands[-1].shown, line.rstrip()))
        else:
            raise ValueError(f"line {block.line}: output before any command")
    return commands


def missing_output(shown: tuple[str, ...], output: str) -> list[str]:
    """The first lines shown that the output does not have where they are expected; empty where it has all of them."""
    rest = [line.rstrip() for line in output.splitlines()]
    part: list[str] = []
    for line in (*shown, "..."):
        if line != "...":
            part.append(line)
            continue
        starts = (at for at in range(len(rest) - len(part) + 1) if rest[at : at + len(part)] == part)
        start = next(starts, None)
        if start is None:
            return part
        rest, part = rest[start + len(part) :], []
    return []


class Reader:
    """Runs the blocks of a page in a folder, with this Python's ``start-agent``; ``close`` ends what they leave."""

    def __init__(self, folder: Path) -> None:
        tools = folder / ".tools"
        tools.mkdir(parents=True)
        self.folder = folder
        warm.tool(tools / "start-agent", "-m", "start_agent")
        warm.tool(tools / "python")
        warm.tool(tools / "pytest", "-m", "pytest", "-p", "no:cacheprovider")
        paths = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        self.environment = os.environ | {
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in paths),
            "COLUMNS": "120",
        }

    def run(self, block: Block, timeout: float) -> None:
        """Run a block, or write its file. Raises AssertionError where it fails or prints something else."""
        if block.file is not None:
            (self.folder / block.file).write_text(block.text, encoding="utf-8")
            return
        if block.language == "python":
            program = self.folder / f"block_{block.line}.py"
            program.write_text(block.text, encoding="utf-8")
            self._run(block, ["python", str(program)], timeout)
            return
        for command in commands_of(block):
            output = self._run(block, ["bash", "-euo", "pipefail", "-c", command.text], timeout)
            missing = missing_output(command.shown, output)
            assert not missing, f"line {block.line}: {command.text}\nshows {missing}\nthe output is\n{output}"

    def close(self) -> None:
        """End the processes that a page has started and not ended, as servers are: those that work in its folder."""
        for place in Path("/proc").glob("[0-9]*/cwd"):
            with suppress(OSError):  # it has ended, or belongs to another user
                if place.readlink().is_relative_to(self.folder):
                    os.kill(int(place.parent.name), signal.SIGTERM)

    def _run(self, block: Block, words: list[str], timeout: float) -> str:
        done = subprocess.run(
            ["env", *words],  # looked up in the folder's own PATH
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert not done.returncode, f"line {block.line}: exit code {done.returncode}\n{block.text}\n{said}"
        return done.stdout
