from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from start_agent.pocket.corpus import texts
from start_agent.pocket.tokenizer import SPECIAL_TOKENS, save_tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer((piece for pieces in islice(texts(0), 1500) for piece in pieces), 1024)


def _pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.decode([i], skip_special_tokens=False) for i in tokenizer.encode(text).ids]


def test_any_text_survives_encoding(tokenizer: Tokenizer) -> None:
    text = "# Straße 漢字 🙂\tx = {'a': 1}\r\n  print(x)\n\n```python\n</think>\n\n"
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_digits_stand_alone(tokenizer: Tokenizer) -> None:
    assert _pieces(tokenizer, "x=48613") == ["x", "=", "4", "8", "6", "1", "3"]


def test_special_tokens_come_first_and_are_whole(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2]
    assert tokenizer.encode("<|im_end|>").ids == [2]


def test_markers_are_split_and_share_tokens_with_newlines(tokenizer: Tokenizer) -> None:
    assert _pieces(tokenizer, "7)\n```\n")[-1] == "```\n"  # a fence and its newline are one token
    assert _pieces(tokenizer, "```python\n")[:2] == ["```", "python"]  # the opening one is several
    end = _pieces(tokenizer, "7.\n</think>\n\nThe answer")
    assert end[1:5] == [".\n", "</", "think", ">\n\n"]  # the last token of the tag holds newlines too


def test_the_saved_folder_is_a_chat_tokenizer_with_thinking_opened(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save_tokenizer(tokenizer, tmp_path, 1024)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = loaded.apply_chat_template(
        [{"role": "user", "content": "What is 2 * 3?"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nWhat is 2 * 3?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert (loaded.eos_token_id, loaded.pad_token_id) == (2, 0)
    assert loaded.encode(text) == tokenizer.encode(text).ids
