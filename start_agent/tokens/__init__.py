"""Text and token ids: the tokenizer, chat templates, think markers, code fences, stop conditions and answers."""
