"""Any model that vLLM runs, through its ``AsyncLLM``: the engine, and what stops turns inside vLLM's scheduler."""

from start_agent.engines.vllm.engine import VLLMEngine, VLLMOptions

__all__ = ["VLLMEngine", "VLLMOptions"]
