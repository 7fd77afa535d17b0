"""The pocket reasoner: a tiny language model that ships with the package, and its problems.

It reasons in words inside `<think>` and knows Python from other texts, but uses it while thinking only after a hint:
the starting point of START, on any machine, offline. Importing this package imports neither torch nor transformers.
"""

from pathlib import Path

from start_agent.models import EMBEDDED
from start_agent.pocket.problems import Split, generate, held_out, split_of

__all__ = ["Split", "generate", "held_out", "split_of", "weights_path"]


def weights_path(name: str = "pocket") -> Path:
    """The folder of a shipped model with its tokenizer, for `from_pretrained` or vLLM."""
    return EMBEDDED[name]
