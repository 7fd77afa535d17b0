"""From traces to a model: selection, rows with labels, supervised fine-tuning, and the recipes of the papers."""
