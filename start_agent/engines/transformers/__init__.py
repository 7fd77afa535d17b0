"""Any causal LM through transformers: the engine, continuous batching over its cache, and sampling."""

from start_agent.engines.transformers.engine import TransformersEngine, TransformersOptions

__all__ = ["TransformersEngine", "TransformersOptions"]
