"""vLLM's core process with the model in it: it keeps to its cores, and ends with the process that started it.

Imported once ``compatibility.py`` has found that it fits.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress

from vllm.v1.executor.uniproc_executor import UniProcExecutor

from start_agent.engines.affinity import OWN_CORES_VARIABLE

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class OneProcess(UniProcExecutor):  # type: ignore[misc] # vLLM has no types
    """Runs the model in the core process itself, which Linux kills when the process that started it is gone.

    vLLM's core waits for requests without end where its parent was killed outright: nobody is left to tell it.
    """

    def _init_executor(self) -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if cores := os.environ.get(OWN_CORES_VARIABLE):
            with suppress(PermissionError):  # then it shares them
                os.sched_setaffinity(0, map(int, cores.split(",")))  # this thread and those that it will start
        super()._init_executor()
