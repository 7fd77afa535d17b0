"""Engines: run a model on token ids and return new token ids."""
