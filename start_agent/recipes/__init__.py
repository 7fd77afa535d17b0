"""Recipes: the steps from a base model to a trained one, resumable. Uses training and below."""
