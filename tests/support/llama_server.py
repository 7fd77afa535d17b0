"""llama.cpp's server from xllamacpp: ``python -m tests.support.llama_server MODEL PORT CONTEXT``."""

from __future__ import annotations

import signal
import sys

import xllamacpp

SLOTS = 16  # the contract opens twelve traces at once


def main(model: str, port: str, context: str) -> None:
    """Serve a GGUF file to loopback, with so many tokens of context in each slot, until a signal comes."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(port)
    parameters.n_parallel = SLOTS
    parameters.n_ctx = SLOTS * int(context)
    parameters.kv_unified = False
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.cpuparams.n_threads = 1
    server = xllamacpp.Server(parameters)  # it listens as long as it is referred to
    signal.pause()
    del server


if __name__ == "__main__":
    main(*sys.argv[1:])
