"""From rows with labels to a model: validation, trainer, checkpoints, saving, cards. Uses data and below."""
