"""STaR: a model is trained on its own correct rationales."""
