"""Supervised fine-tuning on rows with labels: validation, trainer, checkpoints, saving, cards. Uses data and below."""
