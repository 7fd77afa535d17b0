"""What runs inside vLLM's core process: the model, and the end of the process with that of ours.

Imported by ``VLLMEngine`` alone, once vLLM is known to be there.
"""

from __future__ import annotations

import ctypes
import signal
import sys

from vllm.v1.executor.uniproc_executor import UniProcExecutor

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class OneProcess(UniProcExecutor):  # type: ignore[misc] # vLLM has no types
    """Runs the model in the core process itself, which Linux kills when the process that started it is gone.

    vLLM's core waits for requests without end where its parent was killed outright: nobody is left to tell it.
    """

    def _init_executor(self) -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        super()._init_executor()
