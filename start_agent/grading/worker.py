"""The grader's process: reads a JSON line with a prediction and a gold answer, writes one with the verdict.

Run by ``process.Worker`` as ``python -m start_agent.grading.worker``; it ends with its standard input. It may be
killed at any moment. Should the host be gone by then, its own alarm ends it: a signal without a handler ends a
process even inside a single endless operation of C code.
"""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import signal
import sys

MEMORY_BYTES = 4 << 30
"""Address space of the process; an ordinary answer needs about 0.3 GB of it."""

ALARM_SECONDS = 3
"""How much later than the host's own time limit the alarm rings."""


def main() -> int:
    """Serve until standard input ends."""
    # What libraries print must not get between the lines: the answers go to a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the host's to handle
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        from start_agent.grading.expressions import compare
    except ImportError as error:
        print(json.dumps({"missing": error.name or str(error)}), file=answers, flush=True)
        return 1
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        signal.alarm(math.ceil(request["seconds"]) + ALARM_SECONDS)
        verdict = compare(request["pred"], request["gold"])
        signal.alarm(0)
        print(json.dumps(verdict.to_json()), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
