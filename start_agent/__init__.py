"""start-agent: long chains of thought that call Python.

A question goes in, a trace comes out::

    trace = start_agent.solve("What is 48613 * 7957?", model="pocket")
    print(trace, trace.answer)

Importing this package imports neither torch nor an engine: names are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from start_agent import names

if TYPE_CHECKING:
    from start_agent.analysis.run import Run
    from start_agent.api import AsyncSolver, Opened, SyncSolver, evaluate, evaluate_async, open, solve, solve_async
    from start_agent.build import AnswerConfig, SolverConfig, open_solver
    from start_agent.decoding.replay import replay
    from start_agent.decoding.settings import DecodingSettings
    from start_agent.decoding.solver import Solver
    from start_agent.engines.base import Engine, Sampling, Turn, TurnRequest
    from start_agent.engines.http import HTTPEngine, HTTPOptions
    from start_agent.engines.scripted import ScriptedEngine
    from start_agent.engines.transformers import TransformersEngine, TransformersOptions
    from start_agent.engines.vllm import VLLMEngine, VLLMOptions
    from start_agent.errors import StartAgentError
    from start_agent.evaluation import RunConfig, RunListener
    from start_agent.strategies.base import Solution
    from start_agent.tokens.tokenizer import Tokenizer
    from start_agent.trace import Span, SpanKind, Trace, TraceOutcome

    __version__: str

names.check()

_HOMES = {
    "AnswerConfig": "build",
    "AsyncSolver": "api",
    "Opened": "api",
    "Run": "analysis.run",
    "RunConfig": "evaluation",
    "RunListener": "evaluation",
    "Solution": "strategies.base",
    "SolverConfig": "build",
    "SyncSolver": "api",
    "evaluate": "api",
    "evaluate_async": "api",
    "open": "api",
    "open_solver": "build",
    "solve": "api",
    "solve_async": "api",
    "DecodingSettings": "decoding.settings",
    "Engine": "engines.base",
    "HTTPEngine": "engines.http",
    "HTTPOptions": "engines.http",
    "Sampling": "engines.base",
    "ScriptedEngine": "engines.scripted",
    "Solver": "decoding.solver",
    "Span": "trace",
    "SpanKind": "trace",
    "StartAgentError": "errors",
    "Tokenizer": "tokens.tokenizer",
    "Trace": "trace",
    "TraceOutcome": "trace",
    "TransformersEngine": "engines.transformers",
    "TransformersOptions": "engines.transformers",
    "Turn": "engines.base",
    "TurnRequest": "engines.base",
    "VLLMEngine": "engines.vllm",
    "VLLMOptions": "engines.vllm",
    "replay": "decoding.replay",
}

__all__ = [
    "AnswerConfig",
    "AsyncSolver",
    "DecodingSettings",
    "Engine",
    "HTTPEngine",
    "HTTPOptions",
    "Opened",
    "Run",
    "RunConfig",
    "RunListener",
    "Sampling",
    "ScriptedEngine",
    "Solution",
    "Solver",
    "SolverConfig",
    "Span",
    "SpanKind",
    "StartAgentError",
    "SyncSolver",
    "Tokenizer",
    "Trace",
    "TraceOutcome",
    "TransformersEngine",
    "TransformersOptions",
    "Turn",
    "TurnRequest",
    "VLLMEngine",
    "VLLMOptions",
    "evaluate",
    "evaluate_async",
    "open",
    "open_solver",
    "replay",
    "solve",
    "solve_async",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("start-agent")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})  # completion includes names that are not loaded yet
