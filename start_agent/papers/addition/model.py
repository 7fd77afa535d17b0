"""A tiny transformer for the addition experiment: vocabulary, weights, and batched generation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from start_agent.papers.addition.text import CLOSE, OPEN

if TYPE_CHECKING:
    import tokenizers
    from transformers import LlamaForCausalLM

PAD, EOS = "<pad>", "<eos>"
PAD_ID, EOS_ID = 0, 1
_WORDS = ("Input:", "Target:", OPEN, CLOSE, "C:", "+", ",", *"0123456789")
CONTEXT = 256  # tokens; the longest row has 116


def new_tokenizer() -> tokenizers.Tokenizer:
    """A tokenizer with 20 tokens, one per character and word of the format, in byte-level spelling."""
    import tokenizers
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

    words = [PAD, EOS, "Ċ", *_WORDS]  # Ċ is the newline in byte-level spelling
    tokenizer = tokenizers.Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, PAD))
    pattern = Regex("|".join(word.replace("+", r"\+") for word in _WORDS) + r"|\n")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(PAD), AddedToken(EOS)])
    return tokenizer


def new_model(seed: int, layers: int, width: int, heads: int) -> LlamaForCausalLM:
    """A Llama with random weights from the seed, tied embeddings, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=new_tokenizer().get_vocab_size(),
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    return LlamaForCausalLM(config)


def save_model(model: LlamaForCausalLM, folder: Path) -> None:
    """Write the model and its tokenizer in the format of ``AutoModelForCausalLM`` and ``AutoTokenizer``."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(bos_token_id=None, eos_token_id=EOS_ID, pad_token_id=PAD_ID)
    model.save_pretrained(folder)
    new_tokenizer().save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": EOS,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_model(folder: str) -> LlamaForCausalLM:
    """Load a model written by ``save_model`` or by fine-tuning."""
    import torch
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def generate(
    model: LlamaForCausalLM, prompts: Sequence[Sequence[int]], *, max_tokens: int, rows: int = 512
) -> list[list[int]]:
    """Greedy continuations, up to and including the end of sequence, in batches.

    Prompts of equal length share a batch, so that nothing is padded; finished rows are removed from their batch.
    """
    import torch
    from transformers import DynamicCache

    written: list[list[int]] = [[] for _ in prompts]
    with torch.inference_mode():
        for places in _alike(prompts, rows):
            cache = DynamicCache(config=model.config)
            ids = torch.tensor([list(prompts[place]) for place in places])
            for _ in range(max_tokens):
                output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                new = output.logits[:, -1].argmax(-1)
                for place, token in zip(places, new.tolist(), strict=True):
                    written[place].append(token)
                going = (new != EOS_ID).nonzero()[:, 0]
                if len(going) < len(places):
                    if not len(going):
                        break
                    places = [places[row] for row in going.tolist()]
                    cache.batch_select_indices(going)
                ids = new[going, None]
    return written


def _alike(prompts: Sequence[Sequence[int]], rows: int) -> list[list[int]]:
    """The indices of the prompts in batches of equal length."""
    by_length: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(place)
    return [places[start : start + rows] for places in by_length.values() for start in range(0, len(places), rows)]
