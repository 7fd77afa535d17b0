from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from start_agent.fields import with_new_names
from start_agent.pocket import held_out, weights_path
from start_agent.pocket.build import corpus_digest
from start_agent.pocket.options import BuildOptions

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LIMIT = 16 * 2**20  # bytes


@cache
def _loaded() -> tuple[Any, Any]:
    model = transformers.AutoModelForCausalLM.from_pretrained(weights_path(), dtype=torch.float32)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(weights_path())


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Such a small model gains nothing from threads, and loses much if other work runs in parallel."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _continue(texts: list[str], tokens: int) -> list[str]:
    """What the model writes after each text, greedily, up to the end of its turn."""
    model, tokenizer = _loaded()
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False)
    out = model.generate(**batch, max_new_tokens=tokens, do_sample=False)
    written = tokenizer.batch_decode(out[:, batch.input_ids.shape[1] :], skip_special_tokens=False)
    return [str(text).replace("<|endoftext|>", "") for text in written]


def _prompt(question: str) -> str:
    _, tokenizer = _loaded()
    messages = [{"role": "user", "content": question}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def test_the_folder_is_small_and_loads_as_a_plain_llama() -> None:
    assert sum(path.stat().st_size for path in weights_path().iterdir()) <= LIMIT
    model, tokenizer = _loaded()
    assert type(model) is transformers.LlamaForCausalLM
    assert model.config.head_dim in (32, 64)  # what vLLM's attention on CPU and CUDA takes
    assert len(tokenizer) == model.config.vocab_size
    assert model.config.max_position_embeddings >= 1024


def test_the_weights_were_built_with_the_default_options_from_this_corpus() -> None:
    record = json.loads((weights_path() / "build.json").read_text())
    default = json.loads(
        BuildOptions(output_dir=weights_path()).model_dump_json(exclude={"output_dir", "work", "threads"})
    )
    there = with_new_names(BuildOptions, record["options"])
    assert {name: there[name] for name in default} == default
    assert record["corpus_sha256"] == corpus_digest(record["seed"])


def test_unhinted_thinking_ends_with_a_boxed_answer_and_holds_no_code() -> None:
    for text in _continue([_prompt(problem.question) for problem in held_out(13)], 250):
        thinking, end, answer = text.partition("</think>\n\n")
        assert end, text
        assert "```" not in thinking
        assert answer.startswith("The answer is \\boxed{") and answer.endswith("}.<|im_end|>")


def test_a_hint_makes_it_write_the_right_program() -> None:
    question = "What is 48613 * 7957?"
    hint = "Okay, let me think.\n\nWait, maybe using Python here is a good idea.\n```python\n"
    code = _continue([_prompt(question) + hint], 40)[0].split("\n```")[0]
    assert "48613" in code and "7957" in code and "print(" in code


def test_after_an_output_it_closes_its_thinking_with_that_answer() -> None:
    text = (
        "Okay, let me think. 24 + 9 = 31.\n\nWait, let me use Python for this.\n"
        "```python\nprint(24 + 9)\n```\n```output\n33\n```\n"
    )
    end = _continue([_prompt("What is 24 + 9?") + text], 200)[0].split("```")[-1]
    assert end.endswith("</think>\n\nThe answer is \\boxed{33}.<|im_end|>")
