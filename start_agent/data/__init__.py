"""Converts traces to training rows: selection, filters, repairs, loss masks, export. Uses batch and below."""
