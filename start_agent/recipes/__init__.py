"""Recipes: resumable sequences of steps from a base model to a trained one. Uses training and below."""
