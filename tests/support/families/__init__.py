"""Imitations of model families: chat templates that behave like theirs, on small vocabularies of the same kinds."""
