"""A model's JSON files: end of sequence and sampling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.decoding.solver import Solver
from start_agent.engines.base import Sampling, SamplingOptions, model_sampling, not_applied
from start_agent.engines.scripted import ScriptedEngine, byte_tokenizer
from start_agent.errors import ModelError
from start_agent.models import read_configs
from start_agent.tokens.tokenizer import Tokenizer
from tests.support.families.table import FAMILIES, save


@pytest.mark.parametrize(
    ("generation", "config", "ends"),
    [
        (None, None, set()),
        ({"eos_token_id": 3}, None, {3}),
        ({"eos_token_id": [3, 4]}, {"eos_token_id": 5}, {3, 4, 5}),
        (None, {"eos_token_id": [1, 5]}, {1, 5}),
        (None, {"text_config": {"eos_token_id": [6]}, "eos_token_id": None}, {6}),
        ({"eos_token_id": None}, {"eos_token_id": ["x", True, 2.0], "text_config": None}, set()),
        ([], 7, set()),
    ],
)
def test_ends_of_sequence_of_all_files(generation: Any, config: Any, ends: set[int], tmp_path: Path) -> None:
    theirs = save(FAMILIES["qwq"], tmp_path)
    for name, content in (("generation_config.json", generation), ("config.json", config)):
        if content is not None:
            (tmp_path / name).write_text(json.dumps(content))
    if not isinstance(config, int):
        assert Tokenizer.from_pretrained(str(tmp_path)).eos_ids == ends | {theirs.eos_token_id}
    assert read_configs(str(tmp_path)).eos_ids == ends


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"^cannot read the generation_config\.json of [^\n]*$"):
        read_configs(str(tmp_path))


@pytest.mark.parametrize(
    ("generation", "sampling"),
    [
        ({}, Sampling()),
        ({"do_sample": False, "temperature": 0.6}, Sampling()),
        ({"do_sample": True}, Sampling(temperature=1.0)),
        (
            {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95},
            Sampling(temperature=0.6, top_k=20, top_p=0.95),
        ),
        ({"temperature": 0.7, "min_p": 0.1}, Sampling(temperature=0.7, min_p=0.1)),
        ({"do_sample": True, "top_k": 64, "temperature": None}, Sampling(temperature=1.0, top_k=64)),
        ({"do_sample": True, "temperature": -1, "top_p": "much"}, Sampling(temperature=1.0)),
    ],
)
def test_the_models_own_sampling(generation: dict[str, Any], sampling: Sampling) -> None:
    assert model_sampling(generation) == sampling
    assert SamplingOptions().resolved(generation) == sampling


@given(
    st.fixed_dictionaries({}, optional={"temperature": st.floats(0, 2), "top_k": st.integers(0, 9)}),
    st.fixed_dictionaries(
        {"do_sample": st.just(True)}, optional={"temperature": st.floats(0, 2), "top_k": st.integers(0, 9)}
    ),
)
def test_what_the_user_says_goes_before(said: dict[str, Any], generation: dict[str, Any]) -> None:
    found = SamplingOptions(**said).resolved(generation)
    assert found.temperature == said.get("temperature", generation.get("temperature", 1.0))
    assert found.top_k == said.get("top_k", generation.get("top_k", 0))


def test_what_is_not_applied_is_named() -> None:
    assert not_applied({"repetition_penalty": 1.05, "typical_p": 1.0, "no_repeat_ngram_size": None}) == {
        "repetition_penalty": 1.05
    }


def engine(**generation: Any) -> ScriptedEngine:
    plain = byte_tokenizer()
    tokenizer = Tokenizer(
        plain.backend,
        eos_ids=plain.eos_ids,
        render_chat=plain.render_chat,
        generation={"do_sample": True, **generation},
    )
    return ScriptedEngine(["\\boxed{1}"], tokenizer=tokenizer)


async def test_a_solver_samples_as_the_model_asks_and_says_so() -> None:
    model = engine(temperature=0.6, top_p=0.95, repetition_penalty=1.1)
    settings = {"tools": False}
    solver = Solver(model, settings=settings)
    trace = await solver.solve("q")
    assert model.requests[0].sampling == Sampling(temperature=0.6, top_p=0.95)
    assert trace.meta["sampling"]["temperature"] == 0.6
    first, second = solver.notices()
    assert "0.6" in first and "generation_config" in first and "repetition_penalty 1.1" in second
    assert Solver(model, settings=settings, sampling={"temperature": 0}).sampling == Sampling(top_p=0.95)
    explicit = Solver(model, settings=settings, sampling=Sampling())
    assert explicit.sampling == Sampling() and explicit.notices() == []
    assert Solver(ScriptedEngine([]), settings=settings).notices() == []
