"""The pocket reasoner: a tiny language model that ships with the package, and the problems that it knows.

It reasons in words inside `<think>` and knows Python from other texts, but uses it inside its thinking only
when a hint wakes it: the situation that START starts from, on any machine, offline. Importing this package
loads neither torch nor transformers.
"""

from pathlib import Path

from start_agent.models import EMBEDDED
from start_agent.pocket.problems import Split, generate, held_out, split_of

__all__ = ["Split", "generate", "held_out", "split_of", "weights_path"]


def weights_path(name: str = "pocket") -> Path:
    """The folder of a shipped model and its tokenizer, to be given to `from_pretrained` or to vLLM."""
    return EMBEDDED[name]
