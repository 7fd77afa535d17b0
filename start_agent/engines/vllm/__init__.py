"""The engine that runs models with vLLM's ``AsyncLLM``, and stops turns inside vLLM's scheduler."""

from start_agent.engines.vllm.engine import VLLMEngine
from start_agent.engines.vllm.options import VLLMOptions

__all__ = ["VLLMEngine", "VLLMOptions"]
