"""Runs the model in vLLM's core process, on reserved cores, and ends with the process that started it.

Import it only if ``compatibility.py`` has found it compatible.
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
    """Runs the model in the core process itself, which Linux kills when its parent has ended.

    Otherwise vLLM's core would wait for requests forever after its parent was killed with SIGKILL.
    """

    def _init_executor(self) -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if cores := os.environ.get(OWN_CORES_VARIABLE):
            with suppress(PermissionError):  # then it runs on all cores
                os.sched_setaffinity(0, map(int, cores.split(",")))  # for this thread and threads that it will start
        super()._init_executor()
