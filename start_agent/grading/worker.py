"""The main program of a grading process: reads predictions and gold answers as JSON lines and writes verdicts.

``process.Worker`` runs it as ``python -m start_agent.grading.worker``. It ends when its standard input ends, and may be
killed at any time. If the host has died, an alarm ends it: a signal without a handler ends a process even inside a
long operation of C code.
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
"""Limit for the address space of the process; an ordinary answer needs about 0.3 GB."""

ALARM_SECONDS = 3
"""The time between the host's time limit and the alarm, in seconds."""


def main() -> int:
    """Answer requests until standard input ends."""
    # Output that libraries print must not mix with the verdicts, so these have a file descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the host handles Ctrl-C
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
