from __future__ import annotations

import io
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from start_agent.pocket.batches import batch, encoder, pack
from start_agent.pocket.corpus import texts
from start_agent.pocket.options import BuildOptions
from start_agent.pocket.tokenizer import train_tokenizer
from start_agent.trace import IGNORE_INDEX

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.slow


def _options(folder: Path, **changes: Any) -> BuildOptions:
    small: dict[str, Any] = {
        "output_dir": folder,
        "steps": 3,
        "rows": 4,
        "row_length": 256,
        "tokenizer_texts": 300,
        "vocabulary": 400,
        "layers": 1,
        "width": 32,
        "heads": 1,
        "feed_forward": 32,
        "warmup_steps": 1,
        "compile": False,
        "device": "cpu",
        "logging_steps": 1,
    }
    return BuildOptions(**(small | changes))


def _encoder() -> Any:
    return encoder(train_tokenizer((p for pieces in islice(texts(0), 300) for p in pieces), 400))


def test_every_option_says_what_it_is() -> None:
    assert all(field.description for field in BuildOptions.model_fields.values())


@pytest.mark.parametrize("bad", [{"colour": 1}, {"heads": 5}, {"row_length": 2048}, {"steps": 0}])
def test_wrong_options_are_refused(tmp_path: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        _options(tmp_path, **bad)


def test_a_resumed_run_ends_in_the_same_state_as_an_uninterrupted_one(tmp_path: Path) -> None:
    from start_agent.pocket.train import train

    encode, quiet = _encoder(), io.StringIO()
    whole, _ = train(_options(tmp_path / "whole"), encode, 400, stream=quiet)
    train(_options(tmp_path / "parts"), encode, 400, stop_at=1, stream=quiet)
    resumed, _ = train(_options(tmp_path / "parts"), encode, 400, stream=quiet)
    for (name, one), (_, other) in zip(whole.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    one, other = (
        torch.load(tmp_path / name / "work" / "checkpoint.pt", weights_only=True) for name in ("whole", "parts")
    )
    assert one["step"] == other["step"] == 3
    for first, second in zip(one["optimizers"], other["optimizers"], strict=True):
        for key, state in first["state"].items():
            assert all(torch.equal(state[part], second["state"][key][part]) for part in state)
    log = [json.loads(line) for line in (tmp_path / "parts" / "work" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log] == [1, 2, 3]


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    from start_agent.pocket.train import train

    encode, quiet = _encoder(), io.StringIO()
    train(_options(tmp_path), encode, 400, stop_at=1, stream=quiet)
    with pytest.raises(ValueError, match="learning_rate"):
        train(_options(tmp_path, learning_rate=1e-4), encode, 400, stream=quiet)


def test_a_step_s_batch_is_a_function_of_seed_and_step_and_keeps_documents_apart() -> None:
    encode = _encoder()
    one, again, next_one = (batch(encode, 0, step, 4, 256) for step in (5, 5, 6))
    assert torch.equal(one.ids, again.ids) and torch.equal(one.mask, again.mask)
    assert not torch.equal(one.ids, next_one.ids)
    seen = one.mask[:, 0]
    assert torch.equal(seen, seen & torch.ones(256, 256, dtype=torch.bool).tril())
    learned = one.targets[:, :-1] != IGNORE_INDEX
    assert torch.equal(one.targets[:, :-1][learned], one.ids[:, 1:][learned])
    assert bool(seen.diagonal(offset=-1, dim1=1, dim2=2)[learned].all())


def test_packing_never_cuts_a_document() -> None:
    documents = [[n] * n for n in range(1, 30)]
    rows = pack(documents, rows=20, length=40)
    assert all(sum(len(d) for d in row) <= 40 for row in rows)
    assert sorted(len(d) for row in rows for d in row) == list(range(1, 30))


def test_a_small_build_gives_a_loadable_folder(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from start_agent.pocket.build import build

    folder = build(_options(tmp_path, steps=1), stream=io.StringIO())
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.config.eos_token_id == 2
    assert len(AutoTokenizer.from_pretrained(folder)) == model.config.vocab_size
    record = json.loads((folder / "build.json").read_text())
    assert record["options"]["steps"] == 1
    assert len(record["corpus_sha256"]) == 64


def test_a_finished_build_run_again_trains_no_more_and_says_the_same(tmp_path: Path) -> None:
    from start_agent.pocket.build import build

    def record() -> dict[str, Any]:
        folder = build(_options(tmp_path, steps=2), stream=io.StringIO())
        values: dict[str, Any] = json.loads((folder / "build.json").read_text())
        return values

    first = record()
    weights = (tmp_path / "model.safetensors").read_bytes()
    assert record() == first
    assert (tmp_path / "model.safetensors").read_bytes() == weights
    assert len((tmp_path / "work" / "log.jsonl").read_text().splitlines()) == 2


def test_the_length_of_a_run_may_change_until_its_rate_falls(tmp_path: Path) -> None:
    from start_agent.pocket.train import rate_at, train

    encode, quiet = _encoder(), io.StringIO()
    train(_options(tmp_path / "a", steps=10), encode, 400, stop_at=2, stream=quiet)
    train(_options(tmp_path / "a", steps=4), encode, 400, stream=quiet)
    train(_options(tmp_path / "b", steps=4), encode, 400, stream=quiet)
    one, other = (torch.load(tmp_path / n / "work" / "checkpoint.pt", weights_only=True)["model"] for n in "ab")
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(ValueError, match="steps"):
        train(_options(tmp_path / "a", steps=10), encode, 400, stream=quiet)
    rates = [rate_at(step, _options(tmp_path, steps=100, warmup_steps=10)) for step in range(100)]
    assert rates[10:65] == [max(rates)] * 55
    assert rates[65:] == sorted(rates[65:], reverse=True)
