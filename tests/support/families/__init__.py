"""Doubles of model families: chat templates that behave like theirs, on small vocabularies of their kinds."""
