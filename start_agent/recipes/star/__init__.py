"""STaR: a model learns from its own right rationales."""
