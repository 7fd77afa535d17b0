"""``start-agent serve`` with scripted answers: ``python -m tests.support.scripted_server PORT [OPTION...]``.

Of every rollout the first turn is a cell and the next an answer, whatever is asked; the sandbox is the real one. Slow
clients get less time than from a server in use, so that tests need not wait as long.
"""

from __future__ import annotations

import sys

from start_agent.cli.main import main
from start_agent.engines.base import TurnRequest
from start_agent.engines.registry import EngineEntry
from start_agent.engines.scripted import ScriptedEngine
from start_agent.plugins import NoOptions
from start_agent.server import gate, serving

CELL = "Let me compute.\n```python\nprint(6*7)\n```\n"
ANSWER = "So it is 42.</think>\n\nThe answer is \\boxed{42}.<|im_end|>"
MAX_BODY = 1 << 20
HEADER_SECONDS = BODY_SECONDS = 2
LINGER_SECONDS = 1


class TwoTurns(ScriptedEngine):
    """A cell, then an answer."""

    def __init__(self) -> None:
        started = set[str]()

        def write(request: TurnRequest) -> str:
            first = request.trace_id not in started
            started.add(request.trace_id)
            return CELL if first else ANSWER

        super().__init__(write)


ENTRY = EngineEntry("two-turns", NoOptions, lambda model, options: TwoTurns(), {})

if __name__ == "__main__":
    gate._BODY_SECONDS = BODY_SECONDS
    serving._HEADER_SECONDS, serving._LINGER_SECONDS = HEADER_SECONDS, LINGER_SECONDS
    options = ("--engine", f"{__spec__.name}:ENTRY", "--model-name", "scripted", "--max-body", str(MAX_BODY))
    hints = ("--hint-probability", "0", "--end-of-think-hints", "0")
    sys.exit(main(["serve", "--port", *sys.argv[1:], *options, *hints]))
