"""The tokenizer: token ids ↔ bytes, and safe encoding of text and prompts.

``encode`` reads text as plain text, so special tokens spelled out in a hint or a tool's output stay plain text.
``encode_prompt`` reads a rendered chat template in one piece, like transformers: the template's special tokens become
tokens, those spelled out in a question stay text.

**Control tokens** are the added tokens, whether marked special or not (Qwen3's ``<think>`` is not), except runs of
spaces or line breaks (Gemma's), which are ordinary text.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import tokenizers

from start_agent.errors import MissingExtraError, ModelError, TokenizerError, first_line

_PIECE = 1 << 15  # characters
_SEAM = 64  # tokens that a cut may add, for example through a special token that is cut in two

Message = dict[str, str]
ChatRenderer = Callable[[list[Message]], str]


class Tokenizer:
    """A tokenizer in which each id has bytes, and the bytes of a sequence are those of its ids, concatenated.

    Args:
        backend: a fast tokenizer (byte-level BPE, or SentencePiece-style with byte fallback).
        eos_ids: the ids that end a generation.
        render_chat: messages → the text of a prompt that ends where the assistant begins; None if the model has no chat
            template.
        generation: the model's ``generation_config.json``, if known.
        commit: the commit on the Hub from which it was loaded; None if it was not.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        eos_ids: Iterable[int] = (),
        render_chat: ChatRenderer | None = None,
        generation: Mapping[str, Any] | None = None,
        commit: str | None = None,
    ) -> None:
        self.backend = backend
        self.eos_ids = frozenset(eos_ids)
        self.render_chat = render_chat
        self.generation = dict(generation or {})
        self.commit = commit
        self._description: dict[str, Any] = json.loads(backend.to_str())
        self._added = {row["id"]: row["content"] for row in self._description["added_tokens"]}
        self._controls = {number: content for number, content in self._added.items() if not _is_blank(content)}

    @classmethod
    def from_pretrained(cls, model: str, *, revision: str | None = None) -> Tokenizer:
        """Load the tokenizer of an embedded model, a local folder or a model on the Hub.

        Args:
            model: its name or folder.
            revision: a branch, tag or commit on the Hub; None for the main branch.

        Raises:
            MissingExtraError: transformers is not installed.
            ModelError: there is no such tokenizer, or it has no fast form.
        """
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise MissingExtraError("transformers", "transformers") from error
        from start_agent.gguf import pretrained
        from start_agent.models import find, read_configs
        from start_agent.tokens.templates import ChatTemplate

        location = find(model, revision)
        place, arguments = pretrained(location, revision)
        try:
            loaded = AutoTokenizer.from_pretrained(place, **arguments)
        except Exception as error:  # for damaged files, tokenizers raises plain Exception, other readers anything
            raise ModelError(f"cannot load the tokenizer of {model!r}: {first_line(error)}") from error
        if not getattr(loaded, "is_fast", False):
            raise ModelError(f"the tokenizer of {model!r} has no fast form (tokenizer.json)")
        configs = read_configs(location, revision)
        eos_ids = {loaded.eos_token_id, *configs.eos_ids} - {None}
        template = loaded.get_chat_template() if loaded.chat_template else ""
        return cls(
            loaded.backend_tokenizer,
            eos_ids=eos_ids,
            render_chat=ChatTemplate(template, loaded.apply_chat_template),
            generation=configs.generation,
            commit=configs.commit,
        )

    @property
    def added(self) -> Mapping[int, str]:
        """The added tokens, special or not: id → text."""
        return self._added

    @property
    def controls(self) -> Mapping[int, str]:
        """The control tokens: id → text. Encoded text never contains their ids."""
        return self._controls

    @cached_property
    def pieces(self) -> Sequence[bytes]:
        """The bytes of each id, indexed by id; the text of an added token, empty for unused ids.

        Raises:
            TokenizerError: the vocabulary is neither byte-level nor SentencePiece-style.
        """
        to_bytes = _piece_reader(self._description)
        vocabulary = self.backend.get_vocab(with_added_tokens=True)
        pieces = [b""] * (max(vocabulary.values()) + 1)
        for token, token_id in vocabulary.items():
            control = self._controls.get(token_id)
            pieces[token_id] = control.encode() if control is not None else to_bytes(token)
        return pieces

    def bytes_of(self, token_ids: Iterable[int]) -> bytes:
        """The concatenated bytes. Ids beyond the vocabulary (padding of the embedding) have none."""
        pieces, token_ids = self.pieces, tuple(token_ids)
        try:
            return b"".join([pieces[token_id] for token_id in token_ids])
        except IndexError:
            return b"".join(pieces[token_id] for token_id in token_ids if token_id < len(pieces))

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of the ids, with special tokens spelled out and invalid UTF-8 replaced."""
        return self.bytes_of(token_ids).decode("utf-8", errors="replace")

    def encode(self, text: str) -> list[int]:
        """Plain text → ids, never with the id of a control token, whatever the text contains.

        A lone surrogate, which is not valid Unicode text, is encoded as a question mark.

        Raises:
            TokenizerError: the vocabulary has no piece for a character.
        """
        text = text.encode(errors="replace").decode()
        encoding = self._plain.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        if self._controls.keys().isdisjoint(ids):
            return ids
        for token_id, (begin, end) in zip(ids, encoding.offsets, strict=True):
            if token_id in self._controls:
                raise TokenizerError(f"the model's vocabulary has no token for the character {text[begin:end]!r}")
        return ids

    def encode_template(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Text in which special tokens are recognized → ids. Never use it for text of people or models.

        ``add_special_tokens`` also adds the special tokens around a text, like transformers.
        """
        ids: list[int] = self._unlimited.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def exceeds(self, text: str, tokens: int) -> bool:
        """Whether a text certainly has more than ``tokens`` tokens; encodes no more of it than necessary.

        It is encoded in pieces, and each cut may add a few tokens.
        """
        count, cuts = 0, range(0, len(text), _PIECE)
        for number, begin in enumerate(cuts, start=1):
            count += len(self._unlimited.encode(text[begin : begin + _PIECE], add_special_tokens=False))
            if count > tokens + number * _SEAM:
                return True
        return False

    def encode_markers(self, text: str) -> list[int]:
        """Text in which control tokens are recognized → ids, as within a longer text. Never use it for untrusted text.

        Everything else is encoded like in ``encode``.
        """
        ids_of = {content: token_id for token_id, content in self._controls.items()}
        longest_first = sorted(map(re.escape, ids_of), key=len, reverse=True)
        parts = re.split(f"({'|'.join(longest_first)})", text) if longest_first else [text]
        return [token_id for part in parts for token_id in ([ids_of[part]] if part in ids_of else self.encode(part))]

    def encode_prompt(self, text: str, written: Mapping[str, str]) -> list[int]:
        """A rendered prompt → ids, like in transformers, except that text in messages never becomes control tokens.

        Args:
            text: the prompt, in which the first characters of control tokens are replaced in all messages, so that only
                the template spells control tokens.
            written: replacement character → original character.

        A character without a piece in the vocabulary becomes the unknown token, like in transformers.
        """
        text = text.encode(errors="replace").decode()
        table = str.maketrans(dict(written))
        shown = text.translate(table)
        encoding = self._unlimited.encode(shown, add_special_tokens=False)
        ids: list[int] = encoding.ids
        if not written or self._controls.keys().isdisjoint(ids):
            return ids
        expected = self._controls_of(self._unlimited.encode(text, add_special_tokens=False), text)
        if self._controls_of(encoding, shown) == expected:
            return ids
        # A message spells a control token. Encode again with random names for the control tokens of the template.
        parts, at = list[str](), 0
        for token_id, begin, end in expected:
            content = self._controls[token_id]
            place = text.find(content, begin, end)  # without the white space that the token strips
            parts += [text[at:place].translate(table), self._name(token_id)]
            at = place + len(content)
        parts.append(text[at:].translate(table))
        backend = self._guarded
        ids = backend.encode("".join(parts), add_special_tokens=False).ids
        return [self._named.get(token_id, token_id) for token_id in ids]

    def _controls_of(self, encoding: tokenizers.Encoding, text: str) -> list[tuple[int, int, int]]:
        """The control tokens in an encoding: id, begin and end, including white space that the token strips."""
        return [
            (token_id, begin, end)
            for token_id, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if token_id in self._controls and self._controls[token_id] in text[begin:end]
        ]

    def _name(self, token_id: int) -> str:
        return f"\ue000{self._nonce}{token_id}\ue001"

    @cached_property
    def _nonce(self) -> str:
        return secrets.token_hex(16)

    @cached_property
    def _named(self) -> dict[int, int]:
        """Id in the guarded backend → id of the control token."""
        renamed = self._guarded.get_vocab(with_added_tokens=True)
        return {renamed[self._name(token_id)]: token_id for token_id in self._controls}

    @cached_property
    def _unlimited(self) -> tokenizers.Tokenizer:
        """The backend without truncation and padding."""
        if not (self._description["truncation"] or self._description["padding"]):
            return self.backend
        return tokenizers.Tokenizer.from_str(json.dumps(self._description | {"truncation": None, "padding": None}))

    @cached_property
    def _guarded(self) -> tokenizers.Tokenizer:
        """The backend with random names for its control tokens, which no text can contain."""
        names = {content: self._name(token_id) for token_id, content in self._controls.items()}
        return tokenizers.Tokenizer.from_str(json.dumps(_renamed(self._description, names)))

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        # `encode_special_tokens` would still match added tokens that are not marked special (Qwen3's <think>).
        names = {content: self._name(token_id) for token_id, content in self._controls.items()}
        return tokenizers.Tokenizer.from_str(json.dumps(_without_prefix(_renamed(self._description, names))))


def _is_blank(content: str) -> bool:
    """Whether an added token is a run of spaces (also in SentencePiece's form) or line breaks."""
    return content.replace("\u2581", " ").isspace()


def _renamed(description: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A tokenizer's description with other names for some tokens, even if they are ordinary pieces of the model."""
    model = dict(description["model"])
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        model["vocab"] = {names.get(piece, piece): token_id for piece, token_id in vocab.items()}
    else:  # Unigram: pieces with scores
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocab]
    if "merges" in model:
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
        model["merges"] = [pair for pair in pairs if names.keys().isdisjoint((*pair, "".join(pair)))]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    added = [row | {"content": names.get(row["content"], row["content"])} for row in description["added_tokens"]]
    other = {"model": model, "added_tokens": added, "post_processor": None, "truncation": None, "padding": None}
    return description | other


def _without_prefix(part: Any) -> Any:
    """A tokenizer's description that adds no space before a text, because ours continues another text."""
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
    """A function from pieces to bytes, chosen by the tokenizer's decoder."""
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
        f"a tokenizer with the decoder {sorted(map(str, types))} is not supported; "
        "use a byte-level or SentencePiece-style vocabulary"
    )


def _byte_level_table() -> dict[str, int]:
    """The byte-level alphabet of GPT-2: printable bytes stand for themselves, the others for U+0100 and onward."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(0x100) if byte not in set(printable))
    table.update({chr(0x100 + offset): byte for offset, byte in enumerate(others)})
    return table
