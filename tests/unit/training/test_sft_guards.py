"""Validation before the first step; padding and packing keep every label."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from start_agent.errors import ConfigError, DataError
from start_agent.trace import IGNORE_INDEX
from start_agent.training.validation import check_batch, check_packing, check_rows, spans
from tests.support.tiny_models import EOS, PAD, VOCABULARY, rows

torch = pytest.importorskip("torch")
pytest.importorskip("trl")


def row(ids: list[int], labels: list[int] | None = None, **more: Any) -> dict[str, Any]:
    return {"key": "the row", "input_ids": ids, "labels": ids if labels is None else labels, **more}


def test_the_facts_count_what_the_loss_sees() -> None:
    facts = check_rows([row([5, 6, 7]), row([5, 6, 7, 8], [-100, -100, 7, 8])], max_length=4, vocabulary=9)
    assert (facts.rows, facts.tokens, facts.trained, facts.longest) == (2, 7, 4, 4)  # a first token is never predicted


def test_the_digest_knows_ids_labels_and_where_rows_end() -> None:
    sets = [
        [row([5, 6, 7, 8])],
        [row([5, 6]), row([7, 8])],
        [row([5, 6, 7, 8], [-100, 6, 7, 8])],
        [row([5, 6, 7, 7])],
    ]
    assert len({check_rows(one, max_length=9, vocabulary=9).digest for one in sets}) == len(sets)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([], "there are no rows"),
        ([{"input_ids": [1]}], "has no column 'labels'; it has input_ids"),
        ([row([5, 6], [5])], "has 2 input_ids and 1 labels"),
        ([row([5, 6], [5, 7])], "neither -100 nor the id"),
        ([row([5, 9])], "the model has 0 to 8"),
        ([row([5, -1], [5, -100])], "has ids from -1"),
        ([row([5, 6], assistant_masks=[1, 0])], "assistant_masks that do not agree"),
        ([row([5, 6], [-100, -100]), row([5, 6])], "1 of 2 rows have no trained token (the row)"),
        ([row([5, 6], [5, -100])], "1 of 1 rows have no trained token"),
        ([row([5] * 6), row([5] * 8), row([5])], "2 of 3 rows are longer than 4 tokens, the longest 8"),
    ],
)
def test_bad_rows_are_refused_in_one_line_that_counts_them(bad: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(DataError) as caught:
        check_rows(bad, max_length=4, vocabulary=9)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_error_for_a_long_row_says_what_would_do() -> None:
    with pytest.raises(DataError, match="--max-length 8"):
        check_rows([row([5] * 8)], max_length=4, vocabulary=9)


def test_labels_span_by_span() -> None:
    assert spans([-100, -100, 7, 8, -100, 9]) == [(False, 2), (True, 2), (False, 1), (True, 1)]
    assert spans([]) == []


drawn_rows = st.lists(
    st.lists(st.tuples(st.integers(3, VOCABULARY - 1), st.booleans()), min_size=2, max_size=12), min_size=1, max_size=6
).map(lambda drawn: [row([i for i, _ in one], [i if kept else IGNORE_INDEX for i, kept in one]) for one in drawn])


@given(drawn_rows)
def test_trls_padding_keeps_every_label(made: list[dict[str, Any]]) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    batch = DataCollatorForLanguageModeling(pad_token_id=PAD)(made)
    check_batch(batch, made)
    assert int((batch["labels"] != IGNORE_INDEX).sum()) == sum(i != IGNORE_INDEX for one in made for i in one["labels"])


@given(drawn_rows)
@settings(max_examples=25)
def test_trls_packing_keeps_every_label(made: list[dict[str, Any]]) -> None:
    from datasets import Dataset
    from trl import pack_dataset
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    columns = Dataset.from_list([{name: one[name] for name in ("input_ids", "labels")} for one in made])
    packed = pack_dataset(columns, 16, "bfd")
    batch = DataCollatorForLanguageModeling(pad_token_id=PAD, padding_free=True)(list(packed))
    check_batch(batch, made)
    learned = sum(
        i != IGNORE_INDEX for one in made for i in one["labels"][1:]
    )  # the first token of a row is never predicted
    assert int((batch["labels"] != IGNORE_INDEX).sum()) == learned


@pytest.mark.parametrize("padding_free", [False, True])
def test_a_collator_that_changes_one_label_is_found(padding_free: bool) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    made = rows(4)
    batch = DataCollatorForLanguageModeling(pad_token_id=PAD, padding_free=padding_free)(made)
    check_batch(batch, made)
    place = tuple((batch["input_ids"] == EOS).nonzero()[0].tolist())
    assert batch["labels"][place] == EOS
    batch["labels"][place] = IGNORE_INDEX  # what a collator does that takes the EOS for padding
    with pytest.raises(DataError, match="1 sequences of the first batch"):
        check_batch(batch, made)


def test_a_batch_that_was_cut_is_found() -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    made = rows(3)
    cut = [{name: one[name][:8] for name in ("input_ids", "labels")} for one in made]
    with pytest.raises(DataError, match="3 sequences"):
        check_batch(DataCollatorForLanguageModeling(pad_token_id=PAD)(cut), made)


def test_packed_rows_that_see_each_other_are_found_by_running_the_model() -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.2,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    collate = DataCollatorForLanguageModeling(pad_token_id=PAD, padding_free=True)
    check_packing(model, collate)
    assert model.training

    def one_text(made: list[dict[str, Any]]) -> dict[str, Any]:
        return {"input_ids": collate(made)["input_ids"]}

    with pytest.raises(ConfigError, match="--no-packing"):
        check_packing(model, one_text)
