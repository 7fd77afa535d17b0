"""Traces → rows of training data: selection, filters, repairs, loss masks, export. Uses batch and below."""
