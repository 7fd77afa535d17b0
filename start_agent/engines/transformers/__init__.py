"""The engine for causal LMs with transformers: continuous batching, a KV cache of slots, and sampling."""

from start_agent.engines.transformers.engine import TransformersEngine, TransformersOptions

__all__ = ["TransformersEngine", "TransformersOptions"]
