"""Training a tiny model: its loss, its files, and that an interrupted run ends like an uninterrupted one."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from start_agent.errors import ConfigError, DataError, RunDirectoryError, TrainingError
from start_agent.training.options import SftOptions
from start_agent.training.sft import TrainReport, train
from tests.support.tiny_models import rows, tiny_model

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

pytestmark = pytest.mark.slow

ROWS = rows(20)


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
        "group_by_length": True,
        "device": "cpu",
        "threads": 1,
        "save_steps": 2,
    }
    return SftOptions(**(small | changes))


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainReport]:
    """An uninterrupted run: 20 rows in steps of 8, twice."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(str(base), ROWS, options(), folder)


def test_the_report_and_the_curve(whole: tuple[Path, TrainReport]) -> None:
    folder, report = whole
    assert (report.rows, report.steps, report.processes) == (20, 6, 1)
    assert report.tokens == sum(len(row["input_ids"]) for row in ROWS)
    assert report.trained_tokens == sum(label != -100 for row in ROWS for label in row["labels"])
    assert report.last_loss < report.first_loss
    table = (folder / "training" / "loss.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["step", "1", "2", "3", "4", "5", "6"]
    assert (folder / "training" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "training" / "report.json").read_text())["steps"] == 6
    assert not list((folder / "training").glob("checkpoint-*"))
    card = (folder / "README.md").read_text()
    assert report.digest in card and "| learning_rate | `0.01` |" in card
    head: Any = ModelCard(card).data
    assert (head.library_name, head.pipeline_tag, head.base_model) == ("transformers", "text-generation", None)


def test_the_folder_is_the_base_s_but_for_its_weights(base: Path, whole: tuple[Path, TrainReport]) -> None:
    from transformers import AutoModelForCausalLM

    folder, _ = whole
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (folder / name).read_bytes() == (base / name).read_bytes(), name
    old, new = weights(base), weights(folder)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in old.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in new.items()
    }
    assert all(not torch.equal(old[name], new[name]) for name in old)
    AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("per_device_train_batch_size", [20, 4])
@pytest.mark.parametrize("packing", [False, True])
def test_the_loss_of_a_step_is_that_of_its_labels(
    base: Path, tmp_path: Path, packing: bool, per_device_train_batch_size: int
) -> None:
    """Padded or packed, at once or accumulated: the mean over the trained tokens of all rows, each row on its own."""
    from torch.nn.functional import cross_entropy
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    total = count = 0.0
    with torch.no_grad():
        for row in ROWS:
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
            targets = torch.tensor(row["labels"][1:])
            total += float(cross_entropy(logits, targets, ignore_index=-100, reduction="sum"))
            count += int((targets != -100).sum())
    settings = options(
        batch_size=20,
        per_device_train_batch_size=per_device_train_batch_size,
        num_train_epochs=1,
        packing=packing,
        group_by_length=False,
        learning_rate=1e-9,
    )
    report = train(str(base), ROWS, settings, tmp_path)
    assert report.steps == 1
    assert report.first_loss == pytest.approx(total / count, rel=1e-5)


def test_the_loss_on_a_cpu_is_the_one_that_trl_computes_elsewhere(
    base: Path, tmp_path: Path, whole: tuple[Path, TrainReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import SFTTrainer

    from start_agent.training.trainer import RowsTrainer

    monkeypatch.setattr(RowsTrainer, "compute_loss", SFTTrainer.compute_loss)
    report = train(str(base), ROWS, options(), tmp_path)
    assert report.first_loss == pytest.approx(whole[1].first_loss, rel=1e-6)
    assert report.last_loss == pytest.approx(whole[1].last_loss, rel=1e-4)


class KilledError(Exception):
    pass


def killed_at(step: int) -> Any:
    def listen(news: Any) -> None:
        if news.step == step:
            raise KilledError

    return listen


@pytest.mark.parametrize("at", [1, 4, 5, 6])
def test_a_run_cut_off_and_resumed_ends_in_the_same_weights(
    base: Path, tmp_path: Path, whole: tuple[Path, TrainReport], at: int
) -> None:
    with pytest.raises(KilledError):
        train(str(base), ROWS, options(), tmp_path, listener=killed_at(at))
    assert not (tmp_path / "config.json").exists()
    received: list[int] = []
    report = train(str(base), ROWS, options(save_steps=3), tmp_path, listener=lambda news: received.append(news.step))
    assert received[0] == {1: 1, 4: 3, 5: 5, 6: 5}[at]  # a checkpoint at every second step
    assert same(tmp_path, whole[0])
    curve = (tmp_path / "training" / "loss.csv").read_text()
    assert curve == (whole[0] / "training" / "loss.csv").read_text()
    assert report.steps == 6


def test_a_checkpoint_torn_by_the_kill_is_passed_over(
    base: Path, tmp_path: Path, whole: tuple[Path, TrainReport]
) -> None:
    with pytest.raises(KilledError):
        train(str(base), ROWS, options(), tmp_path, listener=killed_at(5))
    work = tmp_path / "training"
    assert sorted(path.name for path in work.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    (work / "checkpoint-4" / "whole.json").unlink()
    (work / "checkpoint-4" / "model.safetensors").write_bytes(b"torn")
    train(str(base), ROWS, options(), tmp_path)
    assert same(tmp_path, whole[0])


def test_a_run_cut_off_after_its_last_step_only_saves(
    base: Path, tmp_path: Path, whole: tuple[Path, TrainReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    from start_agent.training import saving

    def cut_off(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(saving, "install", cut_off)
        with pytest.raises(KilledError):
            train(str(base), ROWS, options(), tmp_path)
    received: list[int] = []
    report = train(str(base), ROWS, options(), tmp_path, listener=lambda news: received.append(news.step))
    assert received == [] and report.steps == 6
    assert same(tmp_path, whole[0])


def test_a_finished_run_again_trains_nothing(base: Path, whole: tuple[Path, TrainReport]) -> None:
    folder, report = whole
    before = (folder / "model.safetensors").stat().st_mtime_ns
    again = train(str(base), ROWS, options(save_steps=1), folder)
    assert again.already_done and again.last_loss == report.last_loss
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_another_run_in_the_folder_is_refused_with_the_difference(
    base: Path, whole: tuple[Path, TrainReport], tmp_path: Path
) -> None:
    folder, _ = whole
    with pytest.raises(RunDirectoryError, match=r"--learning-rate: 0.01 there, 0.5 now"):
        train(str(base), ROWS, options(learning_rate=0.5), folder)
    with pytest.raises(RunDirectoryError, match=r"count of --data: 20 there, 19 now"):
        train(str(base), ROWS[1:], options(), folder)
    other = tiny_model(tmp_path / "other", seed=1)
    with pytest.raises(RunDirectoryError, match="content of --model"):
        train(str(other), ROWS, options(), folder)


def test_a_model_that_no_run_made_is_not_overwritten(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "model")
    with pytest.raises(RunDirectoryError, match=r"config\.json"):
        train(str(base), ROWS, options(), tmp_path / "model")
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(RunDirectoryError, match=r"README\.md"):
        train(str(base), ROWS, options(), tmp_path)


def test_a_failed_start_fixes_no_configuration(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="flash"):
        train(str(base), ROWS, options(attn_implementation="flash_attention_2"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert train(str(base), ROWS, options(num_train_epochs=1), tmp_path).steps == 3


def test_a_loss_that_is_no_number_stops_the_run(base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="lower --learning-rate"):
        train(str(base), ROWS, options(learning_rate=1e30, warmup_ratio=0), tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_rows_longer_than_the_model_reads_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the model's context is 128"):
        train(str(base), rows(3, longest=300), options(max_length=300), tmp_path)
    assert not (tmp_path / "training" / "run.json").exists()


def test_weights_in_bfloat16_are_refused_where_nothing_keeps_a_copy(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="round away small updates"):
        train(str(base), ROWS, options(dtype="bfloat16"), tmp_path)


def test_adapters_are_merged_into_the_model(base: Path, tmp_path: Path) -> None:
    report = train(str(base), ROWS, options(lora_rank=2, dtype="bfloat16", gradient_checkpointing=True), tmp_path)
    assert (tmp_path / "training" / "adapter" / "adapter_config.json").is_file()
    old, new = weights(base), weights(tmp_path)
    assert old.keys() == new.keys()
    changed = {name for name in old if not torch.equal(old[name], new[name].to(old[name].dtype))}
    assert any("q_proj.weight" in name for name in changed)
    assert 0 < report.parameters < sum(tensor.numel() for tensor in old.values()) / 2
    assert math.isfinite(report.last_loss)


def test_adapters_cut_off_and_resumed_end_in_the_same_weights(base: Path, tmp_path: Path) -> None:
    settings = options(lora_rank=2, lora_dropout=0.1)
    train(str(base), ROWS, settings, tmp_path / "whole")
    with pytest.raises(KilledError):
        train(str(base), ROWS, settings, tmp_path / "cut", listener=killed_at(4))
    train(str(base), ROWS, settings, tmp_path / "cut")
    assert same(tmp_path / "cut", tmp_path / "whole")


def test_processes_that_do_not_divide_a_step_are_refused(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="not a multiple of --per-device-train-batch-size 4 times 3 processes"):
        train(str(base), ROWS, options(), tmp_path)


def test_rows_as_a_datasets_dataset_train_the_same(base: Path, tmp_path: Path, whole: tuple[Path, TrainReport]) -> None:
    from datasets import Dataset

    report = train(str(base), Dataset.from_list(ROWS), options(), tmp_path)
    assert report.digest == whole[1].digest
    assert same(tmp_path, whole[0])
