"""Recomputes the figures of docs/how-to/scale.md, so that the page always matches the recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from start_agent.papers.scale import QWEN2_32B, Architecture, Plan, plan_table
from start_agent.training.options import SftOptions, read_recipe

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "scale.md"


def test_the_page_shows_the_table() -> None:
    assert plan_table(Plan()) in PAGE.read_text(encoding="utf-8")


def test_the_plan_is_the_recipe_s() -> None:
    options, plan = SftOptions(**read_recipe("start-32b")), Plan()
    assert (plan.batch, plan.micro_batch, plan.length, plan.epochs) == (
        options.batch_size,
        options.per_device_train_batch_size,
        options.max_length,
        options.num_train_epochs,
    )


def test_parameters_are_those_of_the_real_architecture() -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    for shape in (QWEN2_32B, Architecture(64, 3, 4, 2, 96, 100)):
        config = transformers.Qwen2Config(
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_value_heads,
            intermediate_size=shape.feed_forward,
            vocab_size=shape.vocabulary,
            tie_word_embeddings=False,
        )
        with torch.device("meta"):
            model = transformers.Qwen2ForCausalLM(config)
        assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_figures_named_in_the_page_s_text() -> None:
    plan, text = Plan(), PAGE.read_text(encoding="utf-8")
    scores = 2 * plan.length**2 * plan.model.heads
    assert f"each of the {plan.model.heads} heads, {scores / 1e9:.0f} GB" in text
    assert f"which takes {plan.traffic_bytes / 25e9:.0f} s per step at 25 GB/s per GPU" in text
    assert plan.gpu_bytes < 80e9
    two = Plan(micro_batch=2)
    assert two.gpu_bytes < 80e9 and two.accumulation == plan.accumulation // 2


def test_every_part_scales_as_its_formula_says() -> None:
    plan = Plan()
    assert Plan(gpus=64).states_bytes == plan.states_bytes / 2
    assert Plan(length=2 * plan.length).checkpoints_bytes == 2 * plan.checkpoints_bytes
    assert Plan(rows=1, mean_row=10).steps == Plan(rows=1).most_steps == plan.epochs
