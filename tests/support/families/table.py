"""The families: template, kind of vocabulary, special tokens, and what is expected of each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

HERE = Path(__file__).parent
TEXT = [
    "What is the sum of 2 and 3? System: be brief. user assistant developer [INST] what [/INST] is it?\n"
    "Think about it: the thoughts, final answer and analysis of the numbers 12 34 56.\n\n" * 8
]
_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPLIT += r"|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class FamilyDouble:
    """A family.

    Attributes:
        vocabulary: its kind, a key of ``KINDS``.
        special, plain: its special tokens, and added ones that are not marked special.
        eos: what ends a sequence.
        opens: what the model itself writes before it thinks.
        end: what it writes at the end of its thinking; empty where it does not think between markers.
        on: variables that switch the thinking on, where it is off by default.
        off: variables, or a system message, that switch it off.
        strips: whether its special tokens strip the blanks around them.
    """

    name: str
    vocabulary: str
    special: tuple[str, ...]
    eos: str
    plain: tuple[str, ...] = ()
    bos: str = ""
    opens: str = ""
    end: str = "</think>"
    final: str = ""
    on: dict[str, Any] = field(default_factory=dict)
    off: dict[str, Any] = field(default_factory=dict)
    off_system: str = ""
    strips: bool = False

    @property
    def template(self) -> str:
        return (HERE / f"{self.name}.jinja").read_text(encoding="utf-8")


_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_THINK = ("<think>", "</think>")
_LLAMA = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
_TURNS = ("<｜User｜>", "<｜Assistant｜>")

FAMILIES = {
    double.name: double
    for double in (
        FamilyDouble("qwen3", "qwen", _CHATML, "<|im_end|>", _THINK, opens="<think>\n", off={"enable_thinking": False}),
        FamilyDouble("qwen3.5", "qwen", _CHATML, "<|im_end|>", _THINK, off={"enable_thinking": False}),
        FamilyDouble("qwq", "qwen", _CHATML, "<|im_end|>", _THINK),
        FamilyDouble("r1-distill", "qwen", _DEEPSEEK, _DEEPSEEK[1], (*_TURNS, *_THINK), bos=_DEEPSEEK[0]),
        FamilyDouble(
            "deepseek-v3.1",
            "qwen",
            _DEEPSEEK,
            _DEEPSEEK[1],
            (*_TURNS, *_THINK),
            bos=_DEEPSEEK[0],
            on={"thinking": True},
        ),
        FamilyDouble(
            "deepseek-v3.2",
            "qwen",
            _DEEPSEEK,
            _DEEPSEEK[1],
            (*_TURNS, *_THINK),
            bos=_DEEPSEEK[0],
            off={"enable_thinking": False},
        ),
        FamilyDouble(
            "gpt-oss",
            "qwen",
            ("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>", "<|call|>", "<|constrain|>"),
            "<|return|>",
            opens="<|channel|>analysis<|message|>",
            end="<|end|><|start|>assistant<|channel|>final<|message|>",
        ),
        FamilyDouble(
            "magistral",
            "qwen",
            ("<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[THINK]", "[/THINK]"),
            "</s>",
            bos="<s>",
            opens="[THINK]",
            end="[/THINK]",
        ),
        FamilyDouble("mistral-v0.3", "metaspace", ("<s>", "</s>", "[INST]", "[/INST]"), "</s>", bos="<s>", end=""),
        FamilyDouble("llama-2", "prefixed", ("<s>", "</s>"), "</s>", bos="<s>", end=""),
        FamilyDouble("llama-3.3", "llama3", _LLAMA, "<|eot_id|>", bos=_LLAMA[0], end=""),
        FamilyDouble(
            "nemotron", "llama3", _LLAMA, "<|eot_id|>", bos=_LLAMA[0], opens="<think>\n", off_system="/no_think"
        ),
        FamilyDouble(
            "gemma-3",
            "gemma",
            ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
            "<end_of_turn>",
            ("\n\n", "\n\n\n", "▁▁", "▁▁▁", "<table>"),
            bos="<bos>",
            end="",
        ),
        FamilyDouble(
            "gemma-4",
            "gemma",
            ("<bos>", "<eos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>"),
            "<turn|>",
            ("\n\n", "\n\n\n", "▁▁", "▁▁▁"),
            bos="<bos>",
            opens="<|channel>thought\n",
            end="<channel|>",
            on={"enable_thinking": True},
        ),
        FamilyDouble(
            "phi-4", "llama3", ("<|im_start|>", "<|im_sep|>", "<|im_end|>"), "<|im_end|>", opens="<think>", strips=True
        ),
        FamilyDouble(
            "phi-3",
            "prefixed",
            ("<s>", "</s>", "<|user|>", "<|system|>", "<|assistant|>", "<|end|>"),
            "<|end|>",
            bos="<s>",
            end="",
            strips=True,
        ),
        FamilyDouble(
            "smollm3", "llama3", _CHATML, "<|im_end|>", _THINK, opens="<think>\n", off={"enable_thinking": False}
        ),
        FamilyDouble(
            "granite",
            "qwen",
            ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
            "<|end_of_text|>",
            opens="<think>",
            on={"thinking": True},
        ),
        FamilyDouble(
            "seed-oss",
            "qwen",
            ("<seed:bos>", "<seed:eos>", "<seed:think>", "</seed:think>"),
            "<seed:eos>",
            opens="<seed:think>",
            end="</seed:think>",
        ),
        FamilyDouble(
            "glm-4.6",
            "qwen",
            ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>"),
            "<|user|>",
            (*_THINK, "/nothink"),
            opens="\n<think>",
            off={"enable_thinking": False},
        ),
        FamilyDouble(
            "kimi-k2",
            "qwen",
            ("<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"),
            "<|im_end|>",
            opens="<think>",
        ),
        FamilyDouble("minimax-m2", "qwen", ("]~!b[", "]~b]", "[e~["), "[e~[", _THINK),
    )
}


def _byte_level(*, normalizer: Any = None, ignore_merges: bool = False) -> Backend:
    backend = Backend(models.BPE(ignore_merges=ignore_merges))
    split = pre_tokenizers.Split(Regex(_SPLIT), "isolated", invert=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    )
    backend.normalizer = normalizer
    return backend


def _sentencepiece(normalizer: Any, pre_tokenizer: Any) -> Backend:
    """BPE with bytes where it has no piece; a blank is spelled U+2581."""
    backend = Backend(models.BPE(byte_fallback=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend.train_from_iterator(
        [*TEXT, "a  b   c\n\nd\n\n\n" * 40],
        trainers.BpeTrainer(vocab_size=520, special_tokens=names, show_progress=False),
    )
    parts = json.loads(backend.to_str())
    parts["model"]["fuse_unk"] = True
    backend = Backend.from_str(json.dumps(parts | {"added_tokens": [], "pre_tokenizer": None}))
    backend.normalizer, backend.pre_tokenizer = normalizer, pre_tokenizer
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken("<unk>", normalized=False, special=True)])
    return backend


def _prefixed() -> Backend:
    spelled = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _sentencepiece(spelled, None)


def _metaspace() -> Backend:
    return _sentencepiece(None, pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False))


def _gemma() -> Backend:
    return _sentencepiece(
        normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", behavior="merged_with_previous", invert=False)
    )


KINDS = {
    "qwen": lambda: _byte_level(normalizer=normalizers.NFC()),
    "llama3": lambda: _byte_level(ignore_merges=True),
    "prefixed": _prefixed,
    "metaspace": _metaspace,
    "gemma": _gemma,
}


@cache
def _trained(kind: str) -> str:
    text: str = KINDS[kind]().to_str()
    return text


def save(double: FamilyDouble, folder: Path) -> Any:
    """Write the double's tokenizer, so that ``Tokenizer.from_pretrained`` loads it; returns transformers' own."""
    from transformers import PreTrainedTokenizerFast

    backend = Backend.from_str(_trained(double.vocabulary))
    backend.add_special_tokens(
        [
            AddedToken(text, special=True, normalized=False, lstrip=double.strips, rstrip=double.strips)
            for text in double.special
        ]
    )
    backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in double.plain])
    named = {"eos_token": double.eos} | ({"bos_token": double.bos} if double.bos else {})
    theirs = PreTrainedTokenizerFast(tokenizer_object=backend, **named)
    theirs.chat_template = double.template
    theirs.save_pretrained(folder)
    return theirs
