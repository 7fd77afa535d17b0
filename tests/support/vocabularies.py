"""The vocabularies of the tests, each built once: bytes, the pocket's, SentencePiece-style, the real Qwen."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from start_agent.engines.scripted import byte_tokenizer
from start_agent.pocket import weights_path
from start_agent.pocket.corpus import texts
from start_agent.pocket.tokenizer import IM_END, SPLIT_PATTERN, train_tokenizer
from start_agent.tokens.tokenizer import Tokenizer

NAMES = ("bytes", "pocket", "sentencepiece", "unigram", "qwen", "qwq")
"""``qwen`` spells the think tags as text, as QwQ-32B-Preview does; in ``qwq`` (QwQ-32B) they are single tokens."""

REAL = ("qwen", "qwq")

QWEN_RANKS = Path(__file__).parents[3] / "shared" / "data" / "tokenizers" / "qwen.tiktoken"

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

# The tokens of QwQ-32B's tokenizer_config.json from id 151646 on; those of the second row are not marked special.
_QWQ_SPECIAL: tuple[str, ...] = ("object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start", "quad_end")
_QWQ_SPECIAL += ("vision_start", "vision_end", "vision_pad", "image_pad", "video_pad")
_QWQ_ORDINARY: tuple[str, ...] = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
)
_QWQ_ORDINARY += ("<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>")


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, and its ids by their bytes (special tokens left out)."""

    name: str
    tokenizer: Tokenizer = field(repr=False)
    spellings: dict[bytes, list[int]] = field(repr=False)
    longest: int

    @property
    def eos(self) -> int:
        return min(self.tokenizer.eos_ids)


@cache
def vocabulary(name: str) -> Vocabulary:
    tokenizer = _BUILDERS[name]()
    spellings = defaultdict(list)
    special = {tokenizer.backend.token_to_id(token) for token in (*SPECIALS, "<s>", "</s>", "<unk>")}
    for token_id, piece in enumerate(tokenizer.pieces):
        if piece and token_id not in special:
            spellings[piece].append(token_id)
    return Vocabulary(name, tokenizer, dict(spellings), max(map(len, spellings)))


def _id(backend: tokenizers.Tokenizer, token: str) -> int:
    token_id = backend.token_to_id(token)
    assert token_id is not None
    return token_id


def _pocket() -> Tokenizer:
    file = weights_path() / "tokenizer.json"
    if file.is_file():
        backend = tokenizers.Tokenizer.from_file(str(file))
    else:  # while the weights are being rebuilt
        backend = train_tokenizer((piece for pieces in islice(texts(0), 500) for piece in pieces), 1024)
    return Tokenizer(backend, eos_ids=[_id(backend, IM_END)])


PROSE = (
    "Okay, let me think. Wait, maybe I should check this. Alternatively, I could use Python here.\n\n"
    "```python\nx = 6 * 7\nprint(x)\n```\n```output\n42\n```\nSo the answer is \\boxed{42}.\n</think>\n\n",
    "Wait. Alternatively the sum of the first ten numbers is 55, and that of the first hundred 5050.\n",
)


def _sentencepiece() -> Tokenizer:
    """As Llama 2's: BPE on text with a space put before it and its spaces spelled U+2581, bytes where it has none."""
    sample = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    sample.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<unk>", "<s>", "</s>", *fallback], show_progress=False
    )
    sample.train_from_iterator(PROSE * 3, trainer)
    model = json.loads(sample.to_str())["model"]
    merges = [(left, right) for left, right in model["merges"]]
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=model["vocab"], merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return Tokenizer(backend, eos_ids=[_id(backend, "</s>")])


def _unigram() -> Tokenizer:
    """A Unigram model that holds its special tokens, and the think tag, as ordinary pieces too."""
    words = [
        "▁",
        "▁Wait",
        "Wait",
        ",▁",
        "`\n",
        "```\n",
        "``",
        "```",
        "python",
        "\n```",
        ">\n\n",
        "</",
        "think",
        "</think>",
    ]
    words += ["Alternatively", "Alter", "natively", ".\n", "\n\n", "</s>", "<s>", "▁</s>", "print", "(", "<|im_end|>"]
    # Printable characters have pieces, too: byte fallback is for those that no piece spells.
    words += [chr(code) for code in range(0x21, 0x7F)]
    scored = [("<unk>", 0.0), *((f"<0x{byte:02X}>", -9.0) for byte in range(256))]
    scored += [(word, -10.0 + min(len(word), 8)) for word in dict.fromkeys(words)]
    backend = tokenizers.Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first"), decoders.Fuse()]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>", "<|im_end|>"])
    return Tokenizer(backend, eos_ids=[_id(backend, "</s>")])


@cache
def _qwen_ranks() -> tokenizers.Tokenizer:
    """The tokenizer that transformers makes of the ranks, as TikTokenConverter does."""
    from transformers.convert_slow_tokenizer import TikTokenConverter

    class Converter(TikTokenConverter):  # type: ignore[misc]  # transformers is untyped
        @staticmethod
        def load_tiktoken_bpe(path: str) -> dict[bytes, int]:
            """What the package tiktoken would read."""
            rows = (line.split() for line in Path(path).read_bytes().splitlines() if line)
            return {base64.b64decode(token): int(rank) for token, rank in rows}

    converter = Converter(str(QWEN_RANKS), pattern=SPLIT_PATTERN, extra_special_tokens=list(SPECIALS))
    backend: tokenizers.Tokenizer = converter.converted()
    return backend


def _qwen() -> Tokenizer:
    backend = _qwen_ranks()
    assert [backend.token_to_id(token) for token in SPECIALS] == [151643, 151644, 151645]
    return Tokenizer(backend, eos_ids=[151643, 151645])


def _qwq() -> Tokenizer:
    backend = tokenizers.Tokenizer.from_str(_qwen_ranks().to_str())
    backend.add_special_tokens([f"<|{name}|>" for name in _QWQ_SPECIAL])
    backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in _QWQ_ORDINARY])
    assert (backend.token_to_id("<think>"), backend.token_to_id("</think>")) == (151667, 151668)
    return Tokenizer(backend, eos_ids=[151643, 151645])


_BUILDERS = {
    "bytes": byte_tokenizer,
    "pocket": _pocket,
    "sentencepiece": _sentencepiece,
    "unigram": _unigram,
    "qwen": _qwen,
    "qwq": _qwq,
}
