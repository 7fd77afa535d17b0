"""Evaluation rows, separate adapters, models of each epoch: the additional files of a training."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from start_agent.errors import ConfigError, DataError
from start_agent.pocket import weights_path
from start_agent.training.options import SftOptions
from start_agent.training.sft import train
from tests.support.tiny_models import rows, tiny_model

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from start_agent.training.evaluation import Evaluation  # noqa: E402 - it needs torch

pytestmark = pytest.mark.slow

ROWS, HELD_BACK = rows(20), rows(9, seed=5)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


def options(**changes: Any) -> SftOptions:
    small: dict[str, Any] = {
        "learning_rate": 1e-2,
        "num_train_epochs": 2,
        "batch_size": 8,
        "per_device_train_batch_size": 4,
        "max_length": 64,
        "bf16": False,
        "gradient_checkpointing": False,
        "device": "cpu",
        "threads": 1,
        "save_steps": 2,
        "eval_steps": 2,
    }
    return SftOptions(**(small | changes))


def by_hand(folder: Path, held_back: list[dict[str, Any]]) -> tuple[float, int]:
    """The loss over all trained tokens, and the rows whose answer greedy decoding writes after their thinking."""
    from torch.nn.functional import cross_entropy
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    total = count = 0.0
    right = 0
    for row in held_back:
        ids = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1]
        targets = torch.tensor(row["labels"][1:])
        total += float(cross_entropy(logits, targets, ignore_index=-100, reduction="sum"))
        count += int((targets != -100).sum())
        begin = row.get("answer_begins")
        if begin is not None:
            left = len(row["input_ids"]) - begin
            written = model.generate(ids[:, :begin], do_sample=False, max_new_tokens=left)
            right += written[0].tolist() == row["input_ids"]
    return total / count, right


class KilledError(Exception):
    pass


def test_rows_held_back_are_evaluated_and_shown(base: Path, tmp_path: Path) -> None:
    easy = [row | {"answer_begins": len(row["input_ids"]) - 1} for row in HELD_BACK[:6]] + HELD_BACK[6:]
    seen: list[Evaluation] = []

    def listen(news: Any) -> None:
        if isinstance(news, Evaluation):
            seen.append(news)

    # What is learned is to end: every row ends with the same token.
    report = train(str(base), ROWS, options(num_train_epochs=6), tmp_path, eval_rows=easy, listener=listen)
    assert [found.step for found in seen] == [0, *range(2, 19, 2)]
    for folder, found in ((base, seen[0]), (tmp_path, seen[-1])):
        loss, right = by_hand(folder, easy)
        assert found.loss == pytest.approx(loss, rel=1e-4)
        assert (found.right, found.answers) == (right, 6)
    assert (report.eval_rows, report.eval_answers) == (9, 6)
    assert (report.first_eval_loss, report.last_eval_loss) == (seen[0].loss, seen[-1].loss)
    card = (tmp_path / "README.md").read_text()
    assert f"{seen[-1].loss:.4f} nats" in card and "of 6 |" in card and "eval.csv" in card
    with (tmp_path / "training" / "eval.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [found.step for found in seen]


def test_evaluating_changes_nothing_and_a_resumed_run_has_every_evaluation(base: Path, tmp_path: Path) -> None:
    alone = train(str(base), ROWS, options(), tmp_path / "alone")

    def killed(news: Any) -> None:
        if news.step == 5:
            raise KilledError

    with pytest.raises(KilledError):
        train(str(base), ROWS, options(), tmp_path / "cut", eval_rows=HELD_BACK, listener=killed)
    report = train(str(base), ROWS, options(), tmp_path / "cut", eval_rows=HELD_BACK)
    assert report.last_loss == alone.last_loss
    lines = (tmp_path / "cut" / "training" / "eval.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "0", "2", "4", "6"]


@pytest.mark.parametrize("name", ["problem", "input_ids"])
def test_rows_that_are_trained_on_cannot_be_held_back(base: Path, tmp_path: Path, name: str) -> None:
    trained = [row | {"problem": f"p{number}"} for number, row in enumerate(ROWS)]
    both = HELD_BACK[0] | {"problem": "p3"} if name == "problem" else ROWS[2]
    with pytest.raises(DataError, match=r"^1 of 2 rows of --eval-data"):
        train(str(base), trained, options(), tmp_path, eval_rows=[both, HELD_BACK[1]])
    assert not (tmp_path / "training").exists()


def test_the_model_of_each_epoch_is_kept(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    train(str(base), ROWS, options(keep_epochs=True), tmp_path)
    one, two, end = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("epoch-1", "epoch-2", "."))
    assert (tmp_path / "epoch-1" / "tokenizer.json").is_file()
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(two.state_dict()[name], end.state_dict()[name])
    assert not torch.equal(one.state_dict()[name], end.state_dict()[name])


def test_adapters_may_be_kept_apart(base: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    settings = options(lora_rank=2, keep_epochs=True)
    train(str(base), ROWS, settings, tmp_path / "merged")
    train(str(base), ROWS, settings.model_copy(update={"merge_adapters": False}), tmp_path / "apart")
    assert not (tmp_path / "apart" / "model.safetensors").exists()
    assert json.loads((tmp_path / "apart" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    ids = torch.tensor([ROWS[0]["input_ids"]])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(ids).logits
    for folder in ("apart", "apart/epoch-2", "merged/epoch-2"):
        with_adapters = AutoPeftModelForCausalLM.from_pretrained(tmp_path / folder)(ids).logits
        assert torch.allclose(with_adapters, merged, atol=1e-5)
    assert "LoRA adapters" in (tmp_path / "apart" / "README.md").read_text()


def test_adapters_name_a_base_that_everybody_can_load(tmp_path: Path) -> None:
    train("pocket", ROWS, options(lora_rank=2, merge_adapters=False, max_steps=1), tmp_path)
    named = json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(weights_path())


def test_there_are_no_adapters_to_keep_apart_without_a_rank() -> None:
    with pytest.raises(ValueError, match="merge_adapters"):
        options(merge_adapters=False)


def test_a_resumed_run_does_not_warn_about_tied_weights(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tied = weights_path()  # its output weights are those of its embedding

    def killed(news: Any) -> None:
        if news.step == 5:
            raise KilledError

    with pytest.raises(KilledError):
        train(str(tied), ROWS, options(), tmp_path, listener=killed)
    capfd.readouterr()
    train(str(tied), ROWS, options(), tmp_path)
    assert capfd.readouterr().err == ""


def test_another_set_held_back_is_another_run(base: Path, tmp_path: Path) -> None:
    from start_agent.errors import RunDirectoryError

    train(str(base), ROWS, options(num_train_epochs=1), tmp_path, eval_rows=HELD_BACK)
    with pytest.raises(RunDirectoryError, match="--eval-data"):
        train(str(base), ROWS, options(num_train_epochs=1), tmp_path, eval_rows=HELD_BACK[1:])


def test_an_eval_set_that_cannot_be_used(base: Path, tmp_path: Path) -> None:
    wrong = [HELD_BACK[0] | {"labels": HELD_BACK[0]["labels"][1:]}]
    with pytest.raises((DataError, ConfigError)):
        train(str(base), ROWS, options(), tmp_path, eval_rows=wrong)
