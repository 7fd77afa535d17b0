"""The tokenizer: bytes that add up, and text that never becomes a special token."""

from __future__ import annotations

from unittest import mock

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from start_agent.engines.scripted import byte_tokenizer
from start_agent.errors import TokenizerError, first_line
from start_agent.tokens import tokenizer as module
from start_agent.tokens.tokenizer import Tokenizer
from tests.support import vocabularies
from tests.support.vocabularies import Vocabulary

SPELLED = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<unk>", "<think>", "</think>", "<tool_call>"),
    *(
        "<|im_",
        "start|>",
        "<",
        "</",
        "s>",
        "|>",
        "\n",
        " ",
        "  ",
        "x",
        "Wait, ",
        "```\n",
        "é",
        "漢字",
        "🙂",
        "\u0301",
        "\x00",
    ),
    *("▁", "<0x41>", "\ue000", "\r\n", "user", "7"),
]
TEXTS = st.lists(st.sampled_from(SPELLED), max_size=12).map("".join) | st.text(max_size=30)
# Building a vocabulary once for all examples is meant.
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=120)


def added(tokenizer: Tokenizer) -> dict[int, str]:
    return {token_id: token.content for token_id, token in tokenizer.backend.get_added_tokens_decoder().items()}


@SHARED
@given(text=TEXTS)
def test_plain_text_comes_back_and_never_becomes_an_added_token(vocabulary: Vocabulary, text: str) -> None:
    tokenizer = vocabulary.tokenizer
    if vocabulary.name == "unigram":
        text = text.replace("<0x41>", "")  # this model takes the name of a byte for the byte
    ids = tokenizer.encode(text)
    assert not {*ids} & tokenizer._added.keys()
    # SentencePiece writes a space as U+2581: the one character that such a vocabulary does not tell apart.
    expected = text.replace("▁", " ") if vocabulary.name in ("sentencepiece", "unigram") else text
    assert tokenizer.bytes_of(ids) == expected.encode()
    assert tokenizer.decode(ids) == expected


@SHARED
@given(text=TEXTS)
def test_what_fits_is_never_taken_for_too_long(vocabulary: Vocabulary, text: str) -> None:
    tokenizer, longer = vocabulary.tokenizer, text * 20
    with mock.patch.object(module, "_PIECE", 50):
        assert not tokenizer.exceeds(longer, len(tokenizer.encode_template(longer)))


def test_what_is_too_long_is_found_before_its_end(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer
    text = "1 + 2 " * 20_000
    assert tokenizer.exceeds(text, 1000) and not tokenizer.exceeds("1 + 2", 1000)


def test_the_added_tokens_are_those_of_the_backend(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer
    assert tokenizer._added == added(tokenizer)
    assert len(tokenizer._added) >= 3
    for token_id, content in tokenizer._added.items():
        assert tokenizer.pieces[token_id] == content.encode()
        assert token_id not in tokenizer.encode(content)
        assert tokenizer.bytes_of(tokenizer.encode(content)) == content.encode()


def test_all_specials_spelled_out_nested_and_many_times(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer
    contents = [*tokenizer._added.values()]
    nested = "".join(one[: len(one) // 2] + other + one[len(one) // 2 :] for one in contents for other in contents)
    # As many as a hostile program prints: neither a recursion per occurrence nor quadratic time.
    for text in (nested, "é".join(contents), "".join(contents) * 500):
        ids = tokenizer.encode(text)
        assert not {*ids} & tokenizer._added.keys()
        assert tokenizer.bytes_of(ids) == text.encode()


def test_a_template_means_its_special_tokens(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer
    for token_id, content in tokenizer._added.items():
        ids = tokenizer.encode_template(f"{content}user\n{content}")
        assert ids[0] == token_id == ids[-1]
        assert tokenizer.bytes_of(ids).decode().replace(f"{content} ", content) == f"{content}user\n{content}"


def test_every_byte_has_a_spelling(vocabulary: Vocabulary) -> None:
    assert all(bytes([byte]) in vocabulary.spellings for byte in range(256))


def test_a_model_that_holds_its_special_tokens_as_pieces() -> None:
    tokenizer = vocabularies.vocabulary("unigram").tokenizer
    assert "</s>" in {piece for piece, _ in tokenizer._description["model"]["vocab"]}  # the trap is real
    assert tokenizer.decode(tokenizer.encode("</s>" * 3)) == "</s>" * 3


def test_inserted_text_brings_no_space_of_its_own(vocabulary: Vocabulary) -> None:
    """SentencePiece puts a space before a text; a hint's ``, maybe`` follows its connective directly."""
    for text in (", maybe", "\n```output\n42\n```\n", " two  spaces"):
        assert vocabulary.tokenizer.decode(vocabulary.tokenizer.encode(text)) == text


def test_a_lone_surrogate_is_no_crash(vocabulary: Vocabulary) -> None:
    assert vocabulary.tokenizer.decode(vocabulary.tokenizer.encode("a\udc80b\ud83d")) == "a?b?"


def test_a_character_without_a_piece_is_refused_in_one_line() -> None:
    backend = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -1.0), ("a", -1.0)], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens(["<unk>"])
    tokenizer = Tokenizer(backend)
    assert tokenizer.decode(tokenizer.encode("a aa")) == "a aa"
    with pytest.raises(TokenizerError, match="no token for the character '漢'"):
        tokenizer.encode("a 漢")


def test_a_vocabulary_that_cuts_or_pads_does_not_cut_our_text() -> None:
    backend = byte_tokenizer().backend
    backend.enable_truncation(4)
    backend.enable_padding(length=64)
    assert Tokenizer(backend).decode(Tokenizer(backend).encode("longer than that")) == "longer than that"


def test_an_unknown_kind_of_vocabulary_is_refused() -> None:
    backend = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    with pytest.raises(TokenizerError, match="WordPiece"):
        _ = Tokenizer(backend).pieces


def test_padding_of_the_embedding_has_no_bytes() -> None:
    tokenizer = byte_tokenizer()
    assert tokenizer.bytes_of([*tokenizer.encode("x"), 10**6]) == b"x"


def test_broken_utf8_is_replaced_in_text_and_kept_in_bytes() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode("é")
    assert len(ids) == 2
    assert tokenizer.decode(ids[:1]) == "\ufffd" and tokenizer.bytes_of(ids[:1]) == b"\xc3"


def test_first_line() -> None:
    assert first_line(ValueError("\n one \n two")) == "one "
    assert first_line(KeyError()) == "KeyError"
