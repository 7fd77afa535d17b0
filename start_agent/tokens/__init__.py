"""Text and token ids: the tokenizer, chat templates, think markers, fences, stop conditions, answers. Uses models."""
