"""The tiny model: its own generation compared with the library's, and the learner with the built-in base."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch

from start_agent.papers.addition.base import BaseOptions, make_base, padded
from start_agent.papers.addition.learner import AdditionLearner
from start_agent.papers.addition.model import EOS_ID, PAD_ID, generate, load_model, new_tokenizer
from start_agent.papers.addition.options import AdditionOptions
from start_agent.papers.addition.run import shipped_base
from start_agent.papers.addition.text import answer, draw, prompt, rationale
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import IGNORE_INDEX

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Such a small model is slower on several cores, and much slower if others compute in parallel."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def learner() -> AdditionLearner:
    return AdditionLearner(str(shipped_base()), AdditionOptions().training())


def test_generation_is_the_librarys(learner: AdditionLearner) -> None:
    model = load_model(learner.base)
    problems = [next(draw(seed, "train", (size,))) for size in (1, 2, 3) for seed in (0, 1)]
    prompts = [list(learner.prompt_ids(problem)) for problem in problems]
    theirs: list[list[int]] = []
    for pair in (0, 2, 4):  # the library has no padding to get wrong where two prompts are of one length
        ids = torch.tensor(prompts[pair : pair + 2])
        for row in model.generate(ids, max_new_tokens=60, do_sample=False)[:, ids.shape[1] :].tolist():
            theirs.append(row[: row.index(EOS_ID) + 1] if EOS_ID in row else row)
    assert generate(model, prompts, max_tokens=60) == theirs
    assert generate(model, prompts, max_tokens=60, rows=1) == theirs
    assert generate(model, prompts, max_tokens=7) == [row[:7] for row in theirs]


def test_the_base_does_short_sums_and_follows_a_hint(learner: AdditionLearner) -> None:
    problems = list(islice(draw(7, "dev"), 60))
    plain = learner.write(learner.base, problems, hinted=False, few_shot=False, seed=0)
    hinted = learner.write(learner.base, problems, hinted=True, few_shot=False, seed=0)

    def share(written: list[bool], *digits: int) -> float:
        flags = [right for problem, right in zip(problems, written, strict=True) if problem.meta["level"] in digits]
        return sum(flags) / len(flags)

    assert share([one.right for one in plain], 1, 2) > 0.9
    assert share([one.right for one in plain], 4, 5) < 0.2
    assert share([one.right for one in hinted], 4, 5) > 0.6
    assert all(one.token_ids[-1] == EOS_ID for one in plain if one.right)


def test_the_prompt_that_is_trained_on_has_no_answer(learner: AdditionLearner) -> None:
    for problem in islice(draw(2, "train"), 30):
        assert learner.tokenizer.decode(learner.prompt_ids(problem)) == prompt(problem.question)


def test_a_row_is_read_back(learner: AdditionLearner) -> None:
    asked = "624+259"
    begin, end = (learner.tokenizer.encode(text).ids for text in (prompt(asked), rationale(asked)))
    row = {"input_ids": [*begin, *end, EOS_ID], "labels": [*[IGNORE_INDEX] * len(begin), *end, EOS_ID]}
    assert learner.read_row(row) == (asked, rationale(asked))


def test_the_baseline_is_trained_on_bare_answers(learner: AdditionLearner) -> None:
    for problem in islice(draw(4, "train"), 10):
        (row,) = learner.direct_rows([problem])
        assert learner.read_row(row) == (problem.question, answer(problem.question))
        assert row["labels"][-1] == EOS_ID


def test_the_engines_read_its_tokenizer(learner: AdditionLearner) -> None:
    tokenizer = Tokenizer.from_pretrained(learner.base)
    text = prompt("62+25", "87") + rationale("62+25")
    assert tokenizer.encode(text) == new_tokenizer().encode(text).ids
    assert tokenizer.decode(tokenizer.encode(text)) == text and tokenizer.eos_ids == {EOS_ID}


def test_padding_is_on_the_right() -> None:
    assert padded([[5, 6], [7]]).tolist() == [[5, 6], [7, PAD_ID]]
    assert padded([[5, 6], [7]], IGNORE_INDEX).tolist() == [[5, 6], [7, IGNORE_INDEX]]


def test_a_base_is_made_from_its_options_alone(tmp_path: Path) -> None:
    options = BaseOptions(steps=3, batch_size=4, layers=1, width=32, heads=1)
    losses: list[float] = []
    for name in ("one", "other"):
        make_base(tmp_path / name, options, lambda step, loss: losses.append(loss))
    assert losses[:3] == losses[3:]
    one, other = (load_model(str(tmp_path / name)).state_dict() for name in ("one", "other"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert json.loads((tmp_path / "one" / "base.json").read_text())["options"]["steps"] == 3


def test_the_shipped_base_is_that_of_the_defaults() -> None:
    record = json.loads((shipped_base() / "base.json").read_text())
    assert record["options"] == json.loads(BaseOptions().model_dump_json())
    weights = shipped_base() / "model.safetensors"
    assert record["parameters"] < 2_000_000 and weights.stat().st_size < 2 << 20
