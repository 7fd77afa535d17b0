"""The engine for a running server that takes and returns token ids: vLLM, SGLang or llama.cpp."""

from start_agent.engines.http.client import API_KEY
from start_agent.engines.http.engine import HTTPEngine
from start_agent.engines.http.options import HTTPOptions

__all__ = ["API_KEY", "HTTPEngine", "HTTPOptions"]
