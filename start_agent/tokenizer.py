"""Token ids ↔ bytes, and the one way in which text becomes ids.

Two encoders, never mixed up: ``encode`` reads text as plain text, so that a special token that is spelled out in a
question, a hint or a tool's output stays plain text; ``encode_template`` reads the fixed parts of a chat template,
where special tokens are meant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import tokenizers

from start_agent.errors import MissingExtraError, ModelError, TokenizerError

Message = dict[str, str]
ChatRenderer = Callable[[list[Message]], str]


class Tokenizer:
    """A vocabulary: each id has bytes, and the bytes of a sequence are the bytes of its ids, concatenated.

    Args:
        backend: a fast tokenizer (byte-level BPE, or SentencePiece-style with byte fallback).
        eos_ids: the ids that end a generation.
        render_chat: messages → the text of a prompt that ends where the assistant begins; None where the model
            has no chat template.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        eos_ids: Iterable[int] = (),
        render_chat: ChatRenderer | None = None,
    ) -> None:
        self.backend = backend
        self.eos_ids = frozenset(eos_ids)
        self.render_chat = render_chat
        self._description: dict[str, Any] = json.loads(backend.to_str())
        self._added = {row["id"]: row["content"] for row in self._description["added_tokens"]}

    @classmethod
    def from_pretrained(cls, model: str) -> Tokenizer:
        """Load the tokenizer of a model of the hub or of a local folder.

        Raises:
            MissingExtraError: transformers is not installed.
            ModelError: there is no such tokenizer, or it has no fast form.
        """
        try:
            from transformers import AutoTokenizer, GenerationConfig
        except ImportError as error:
            raise MissingExtraError("transformers", "transformers") from error
        try:
            loaded = AutoTokenizer.from_pretrained(model)
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot load the tokenizer of {model!r}: {first_line(error)}") from error
        if not getattr(loaded, "is_fast", False):
            raise ModelError(f"the tokenizer of {model!r} has no fast form (tokenizer.json)")
        eos_ids = {loaded.eos_token_id}
        if not Path(model).is_dir() or (Path(model) / "generation_config.json").exists():
            try:
                configured = GenerationConfig.from_pretrained(model).eos_token_id
            except (OSError, ValueError):
                configured = None  # the file is optional: the tokenizer's own end token then stands alone
            eos_ids |= set(configured) if isinstance(configured, list) else {configured}

        def render(messages: list[Message]) -> str:
            text = loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            return str(text)

        return cls(
            loaded.backend_tokenizer,
            eos_ids=(token_id for token_id in eos_ids if token_id is not None),
            render_chat=render if loaded.chat_template else None,
        )

    @property
    def added(self) -> Mapping[int, str]:
        """The added tokens, special or not, and what they spell: text never holds their ids."""
        return self._added

    @cached_property
    def pieces(self) -> Sequence[bytes]:
        """The bytes of each id, indexed by id; an added token's bytes are its literal text, a gap's are empty.

        Raises:
            TokenizerError: the vocabulary is neither byte-level nor SentencePiece-style.
        """
        to_bytes = _piece_reader(self._description)
        vocabulary = self.backend.get_vocab(with_added_tokens=True)
        pieces = [b""] * (max(vocabulary.values()) + 1)
        for token, token_id in vocabulary.items():
            added = self._added.get(token_id)
            pieces[token_id] = added.encode() if added is not None else to_bytes(token)
        return pieces

    def bytes_of(self, token_ids: Iterable[int]) -> bytes:
        """The concatenated bytes. Ids beyond the vocabulary (padding of the embedding) have none."""
        pieces = self.pieces
        return b"".join(pieces[token_id] for token_id in token_ids if token_id < len(pieces))

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of the ids: special tokens spelled out, bytes that are no UTF-8 replaced."""
        return self.bytes_of(token_ids).decode("utf-8", errors="replace")

    def encode(self, text: str) -> list[int]:
        """Plain text → ids. No id of an added token ever comes out, whatever the text spells.

        A lone surrogate, which is no Unicode text, is read as a question mark.

        Raises:
            TokenizerError: a character that the vocabulary has no piece for.
        """
        text = text.encode(errors="replace").decode()
        encoding = self._plain.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        if self._added.keys().isdisjoint(ids):
            return ids
        # Some vocabularies hold a special token as an ordinary piece too: break its spelling wherever it stands.
        found = [span for token_id, span in zip(ids, encoding.offsets, strict=True) if token_id in self._added]
        for begin, end in found:
            if end - begin < 2:
                raise TokenizerError(f"the model's vocabulary has nothing for the character {text[begin:end]!r}")
        edges = [0, *(begin + 1 for begin, _ in found), len(text)]
        return [token_id for begin, end in pairwise(edges) for token_id in self.encode(text[begin:end])]

    def encode_template(self, text: str) -> list[int]:
        """The fixed text of a chat template → ids, special tokens recognised. Never for anybody's input."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        return ids

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        # `encode_special_tokens` would still match added tokens that are not marked special (Qwen3's <think>).
        plain: dict[str, Any] = {"added_tokens": [], "truncation": None, "padding": None}
        return tokenizers.Tokenizer.from_str(json.dumps(_without_prefix(self._description) | plain))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for one-line reports."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _without_prefix(part: Any) -> Any:
    """A tokenizer's description without the space that some put before any text: ours goes on in the middle."""
    if isinstance(part, list):
        return [_without_prefix(item) for item in part]
    if not isinstance(part, dict):
        return part
    without = dict(part)
    for key in ("normalizer", "pre_tokenizer", "normalizers", "pretokenizers"):
        if key in part:
            without[key] = _without_prefix(part[key])
    kind = part.get("type")
    if kind == "Prepend":
        return {"type": "Sequence", "normalizers": []}
    if kind == "Metaspace":
        without["prepend_scheme"] = "never"
    if kind == "ByteLevel" and "add_prefix_space" in part:
        without["add_prefix_space"] = False
    return without


def _piece_reader(description: dict[str, Any]) -> Callable[[str], bytes]:
    """How a vocabulary spells bytes, read from its decoder."""
    decoder = description.get("decoder") or {}
    parts = decoder.get("decoders", [decoder])
    types = {part.get("type") for part in parts}
    if "ByteLevel" in types:
        table = _byte_level_table()

        def byte_level(token: str) -> bytes:
            try:
                return bytes(table[character] for character in token)
            except KeyError:
                return token.encode()

        return byte_level
    if types & {"Metaspace", "ByteFallback"}:

        def sentencepiece(token: str) -> bytes:
            if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
                return bytes([int(token[3:5], 16)])
            return token.replace("\u2581", " ").encode()

        return sentencepiece
    raise TokenizerError(
        f"a tokenizer with the decoder {sorted(map(str, types))} is not supported: "
        "use a byte-level or SentencePiece-style vocabulary"
    )


def _byte_level_table() -> dict[str, int]:
    """The byte-level alphabet of GPT-2: printable bytes stand for themselves, the others for U+0100 and onward."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(0x100) if byte not in set(printable))
    table.update({chr(0x100 + offset): byte for offset, byte in enumerate(others)})
    return table
