"""The HTTP face: OpenAI's wire over the solver. It may use everything below ``cli``; only commands and users use it."""
