"""The server under load: streaming clients, some of which go away, compared with the same rollouts without HTTP.

64 clients send pocket questions to ``start-agent serve``, one after the other, and read the streams: chat completions
and responses by turns. A fifth of the requests is abandoned at a random moment. The same engine then grows as many
traces at once without a server (bare), before and after.

* ``tokens_ratio``: tokens of all traces per second, inserted ones included, divided by those of bare. Here the clients
  take processor time, too (``client_cpu_share``), which on a machine of few cores is the engine's.
* ``cpu_ratio``: the same per second of processor time, without that of the clients.
* ``failed``: requests that were not abandoned, and did not end as they should.
* ``first_token_ms_p50``, ``…_p99``: from sending a request to the first words of the model.
* ``resident_mb_more``, ``descriptors_more``, ``processes_more``: of the idle server after the load, compared with the
  idle server before; ``left``: processes and folders that are left once it has been stopped.
* ``plain_tokens_per_second``: with ``--vllm-serve``, what vLLM's own server streams of the same model's plain chat:
  neither hints nor tools, so that the difference is the price of the loop.

    python -m benchmarks.server [--quick] [--engines transformers,vllm] [--clients N] [--seconds X] [--vllm-serve]
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: what is beside this one must not be taken for top-level modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import asyncio
import os
import platform
import random
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata, util
from itertools import count

from rich.table import Table

from benchmarks.report import Report, Target, new_parser, positive, rounded, run, say
from benchmarks.server_process import Server, orphans, post, running
from start_agent.build import SolverConfig, open_solver
from start_agent.pocket import held_out
from start_agent.trace import SpanKind

TARGETS: dict[str, Target] = {
    "tokens_ratio": (">=", 0.9),
    "failed": ("<=", 0),
    "descriptors_more": ("<=", 0),
    "processes_more": ("<=", 0),
    "left": ("<=", 0),
}

_ABANDONED = 0.2
_SETTLE_SECONDS = 20.0  # for what was abandoned to end
_AUTHORS = re.compile(rb'^start_agent:tokens_total\{author="\w+".*\} ([0-9.e+]+)$', re.MULTILINE)
_PLAIN = re.compile(rb"^vllm:generation_tokens_total\{.*\} ([0-9.e+]+)$", re.MULTILINE)
_BUSY = re.compile(rb"^start_agent:num_requests_(?:running|waiting)\{.*\} ([0-9.e+]+)$", re.MULTILINE)
_CHAT, _RESPONSES = "/v1/chat/completions", "/v1/responses"
_FIRST = {_CHAT: (b'"reasoning":"', b'"reasoning_content":"', b'"content":"'), _RESPONSES: (b".delta",)}
_LAST = {_CHAT: b"data: [DONE]", _RESPONSES: b"event: response.completed"}


@dataclass(slots=True)
class Load:
    """What the clients have seen; times in seconds."""

    ended: int = 0
    abandoned: int = 0
    failed: int = 0
    first: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu: float = 0.0


async def load(port: int, model: str, paths: Sequence[str], arguments: argparse.Namespace) -> Load:
    """Send requests for so long, and read all answers to their ends."""
    found, numbers, draw = Load(), count(), random.Random(arguments.seed)
    questions = [problem.question for problem in held_out(500)]
    begun, cpu = time.perf_counter(), time.process_time()
    typical = 1.0  # seconds of a request, so far

    async def client() -> None:
        nonlocal typical
        while time.perf_counter() - begun < arguments.seconds:
            number = next(numbers)
            path = paths[number % len(paths)]
            question = questions[number % 500]
            messages = [{"role": "user", "content": question}]
            asked: dict[str, object] = {"input": question} if path == _RESPONSES else {"messages": messages}
            sent = time.perf_counter()
            patience = draw.uniform(0, typical) if draw.random() < arguments.abandon else 600.0
            try:
                async with asyncio.timeout(patience):
                    whole = await _stream(port, path, {"model": model, "stream": True, **asked}, sent, found)
            except TimeoutError:
                found.abandoned += 1
                continue
            except OSError:
                whole = False
            found.ended, found.failed = found.ended + whole, found.failed + (not whole)
            typical += 0.1 * (time.perf_counter() - sent - typical)

    await asyncio.gather(*(client() for _ in range(arguments.clients)))
    found.seconds, found.cpu = time.perf_counter() - begun, time.process_time() - cpu
    return found


async def _stream(port: int, path: str, body: dict[str, object], sent: float, found: Load) -> bool:
    """Read a stream; whether it ended as it should."""
    reader, writer = await post(port, path, body)
    try:
        if b" 200 " not in await reader.readline():
            return False
        first, last, tail = _FIRST[path], _LAST[path], b""
        while data := await reader.read(1 << 16):
            if first and any(word in data for word in first):
                found.first.append(time.perf_counter() - sent)
                first = ()
            tail = (tail + data)[-4096:] if len(data) < 4096 else data
            if last in tail:
                return True
        return False
    finally:
        writer.close()


async def bare(engine: str, arguments: argparse.Namespace) -> tuple[float, float]:
    """Tokens per second, and per second of processor time, of so many traces at once without a server."""
    questions = [problem.question for problem in held_out(500)]
    numbers = count()
    config = SolverConfig.of(model=arguments.model, engine=engine, **_threads(arguments))
    async with open_solver(config, sessions=arguments.clients) as solver:
        await asyncio.gather(*(solver.solve(questions[number], seed=None) for number in range(8)))
        begun, cpu, tokens = time.perf_counter(), running().cpu, 0

        async def work() -> None:
            nonlocal tokens
            while time.perf_counter() - begun < arguments.seconds:
                trace = await solver.solve(questions[next(numbers) % 500], seed=None)
                tokens += trace.count() - trace.count(SpanKind.PROMPT)

        await asyncio.gather(*(work() for _ in range(arguments.clients)))
        return tokens / (time.perf_counter() - begun), tokens / (running().cpu - cpu)


def _threads(arguments: argparse.Namespace) -> dict[str, int]:
    return {} if arguments.threads is None else {"threads": arguments.threads}


async def served(engine: str, arguments: argparse.Namespace) -> tuple[dict[str, float], Load]:
    """The figures of a server with this engine."""
    words = ["serve", "--model", arguments.model, "--engine", engine, "--port", "0"]
    words += ["--max-requests", str(arguments.clients), "--queue", str(2 * arguments.clients), "--containers", "4"]
    words += ["--threads", str(arguments.threads)] if arguments.threads else []
    there = orphans()
    async with Server([sys.executable, "-m", "start_agent", *words]) as server:
        quick = argparse.Namespace(**{**vars(arguments), "seconds": 2.0, "abandon": 0.0, "clients": 8})
        await load(server.port, arguments.model, (_CHAT, _RESPONSES), quick)
        await _settled(server)
        before, tokens = server.usage(), _sum(_AUTHORS, await server.metrics())
        found = await load(server.port, arguments.model, (_CHAT, _RESPONSES), arguments)
        await _settled(server)
        after, more = server.usage(), _sum(_AUTHORS, await server.metrics()) - tokens
        code = await server.stop()
        left = await server.left()
    figures = {
        "tokens_per_second": more / found.seconds,
        "tokens_per_cpu_second": more / (after.cpu - before.cpu),
        "client_cpu_share": found.cpu / found.seconds,
        "requests": found.ended,
        "abandoned": found.abandoned,
        "failed": found.failed,
        "first_token_ms_p50": 1000 * _quantile(found.first, 0.5),
        "first_token_ms_p99": 1000 * _quantile(found.first, 0.99),
        "resident_mb": after.resident_mb,
        "resident_mb_more": after.resident_mb - before.resident_mb,
        "descriptors_more": after.descriptors - before.descriptors,
        "processes_more": after.processes - before.processes,
        "left": left + orphans() - there,
        "exit_code": code,
    }
    return figures, found


async def _settled(server: Server) -> None:
    """Wait until nothing runs: what was abandoned needs a moment."""
    until = time.monotonic() + _SETTLE_SECONDS
    while _sum(_BUSY, await server.metrics()) and time.monotonic() < until:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.2)
    await asyncio.sleep(1)  # kernels that were killed are gone, and the one kept ready is there


async def plain(arguments: argparse.Namespace) -> float:
    """Tokens per second of ``vllm serve``, whose clients ask for plain chat."""
    from start_agent.models import resolve

    # What ``vllm serve`` runs; the CPU build lacks the command.
    words = ["-m", "vllm.entrypoints.openai.api_server", "--model", resolve(arguments.model).location]
    words += ["--served-model-name", arguments.model, "--dtype", "float32"]
    words += ["--max-num-seqs", str(arguments.clients), "--enforce-eager", "--host", "127.0.0.1", "--port", "{port}"]
    async with Server([sys.executable, *words], environment=_VLLM) as server:
        begun = _sum(_PLAIN, await server.metrics())
        found = await load(server.port, arguments.model, (_CHAT,), arguments)
        tokens = _sum(_PLAIN, await server.metrics()) - begun
        await server.stop()
    return tokens / found.seconds


_VLLM = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "2", "OMP_WAIT_POLICY": "PASSIVE"}


def _sum(pattern: re.Pattern[bytes], text: bytes) -> float:
    return sum(map(float, pattern.findall(text)))


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values) or [0.0]
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def measure(arguments: argparse.Namespace) -> Report:
    """Bare, served, bare, for each engine."""
    figures: dict[str, float] = {}
    table = Table("figure", *arguments.engines, title="server", title_justify="left")
    columns = []
    for engine in arguments.engines:
        say(f"{engine}: bare")
        one = await bare(engine, arguments)
        say(f"{engine}: served")
        mine, _ = await served(engine, arguments)
        say(f"{engine}: bare again")
        other = await bare(engine, arguments)
        mine |= {
            "tokens_per_second_bare": (one[0] + other[0]) / 2,
            "tokens_ratio": 2 * mine["tokens_per_second"] / (one[0] + other[0]),
            "cpu_ratio": 2 * mine["tokens_per_cpu_second"] / (one[1] + other[1]),
        }
        columns.append(rounded(mine))
        prefix = "" if engine == arguments.engines[0] else f"{engine}_"
        figures |= {f"{prefix}{name}": value for name, value in mine.items()}
    for name in columns[0]:
        table.add_row(name, *(f"{column[name]:,.4g}" for column in columns))
    if arguments.vllm_serve:
        say("vllm serve: plain chat")
        figures["plain_tokens_per_second"] = await plain(arguments)
        table.add_row("plain_tokens_per_second (vllm serve)", f"{figures['plain_tokens_per_second']:,.4g}")
    settings = {
        "quick": arguments.quick,
        "seed": arguments.seed,
        "model": arguments.model,
        "engines": arguments.engines,
        "clients": arguments.clients,
        "seconds": arguments.seconds,
        "abandon": arguments.abandon,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {"python": platform.python_version(), "start-agent": metadata.version("start-agent")},
    }
    targets = TARGETS | {f"{engine}_{name}": TARGETS[name] for engine in arguments.engines[1:] for name in TARGETS}
    return Report("server", rounded(figures), targets, settings, [table])


def main(argv: Sequence[str] | None = None) -> int:
    """The command: its exit code."""
    parser = new_parser("Streaming clients of the server, some of which go away, beside the same rollouts without it.")
    engines = ["transformers", *(["vllm"] if util.find_spec("vllm") else [])]
    parser.add_argument("--engines", type=lambda text: text.split(","), default=engines, metavar="A,B")
    parser.add_argument("--model", default="pocket", help="an embedded model (default: pocket)")
    parser.add_argument("--clients", type=positive, default=64, metavar="N", help="streams at once (default: 64)")
    parser.add_argument("--seconds", type=float, metavar="X", help="of load (default: 60; with --quick 8)")
    parser.add_argument("--abandon", type=float, default=_ABANDONED, metavar="X", help="share of requests given up")
    parser.add_argument("--vllm-serve", action="store_true", help="measure vLLM's own server, too")
    with suppress(IndexError):
        found = parser.parse_args(argv)
        parser.set_defaults(seconds=found.seconds or (8.0 if found.quick else 60.0))
    return run(parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
