"""inspect_ai and lm-eval get the same results through the server as ``batch``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest

from start_agent.pocket import weights_path
from tests.clients.conftest import KEY, MAX_TOKENS, PROBLEMS

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]

BIN = Path(sys.executable).parent
CONCURRENCY = "4"
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OPENAI_API_KEY": KEY}


def correct(records: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    """Of each problem whether its answer is right."""
    return [(record["problem"], record["correct"]) for record in records]


def run(*command: str | Path, environment: dict[str, str], folder: Path) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[:4000] + done.stderr[-2000:]


@pytest.mark.parametrize("responses", ["false", "true"])
def test_inspect_ai(records: list[dict[str, Any]], problems: Path, url: str, tmp_path: Path, responses: str) -> None:
    shutil.copy(Path(__file__).with_name("inspect_task.py"), tmp_path / "task.py")  # it takes relative paths alone
    run(
        *(BIN / "inspect", "eval", "task.py", "-T", f"problems={problems}", "--model", "openai-api/local/pocket"),
        *("-M", f"responses_api={responses}", "--temperature", "0", "--max-tokens", str(MAX_TOKENS)),
        *("--log-dir", tmp_path, "--log-format", "json", "--display", "plain", "--max-connections", CONCURRENCY),
        environment=ENVIRONMENT | {"LOCAL_BASE_URL": url, "LOCAL_API_KEY": KEY},
        folder=tmp_path,
    )
    (log,) = tmp_path.glob("*.json")
    found = json.loads(log.read_text())
    assert found["status"] == "success"
    samples = [(sample["id"], sample["scores"]["pattern"]["value"] == "C") for sample in found["samples"]]
    assert sorted(samples) == correct(records)
    (score,) = found["results"]["scores"]
    assert score["metrics"]["accuracy"]["value"] == sum(right for _, right in correct(records)) / PROBLEMS
    if responses == "true":
        assert all("reasoning" in json.dumps(sample["output"]) for sample in found["samples"])


TASK: dict[str, Any] = {
    "task": "pocket_problems",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": [], "do_sample": False, "temperature": 0, "max_gen_toks": MAX_TOKENS},
    "filter_list": [
        {
            "name": "boxed",
            "filter": [
                {"function": "regex", "regex_pattern": r"\\boxed\{([^{}]*)\}", "group_select": -1},
                {"function": "take_first"},
            ],
        }
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


@pytest.mark.parametrize("kind", ["chat-completions", "completions"])
def test_lm_eval(records: list[dict[str, Any]], problems: Path, url: str, tmp_path: Path, kind: str) -> None:
    task = TASK | {"dataset_kwargs": {"data_files": {"test": str(problems)}}}
    (tmp_path / "task.yaml").write_text(json.dumps(task))
    path = "chat/completions" if kind == "chat-completions" else "completions"
    arguments = f"model=pocket,base_url={url}/{path},num_concurrent={CONCURRENCY},max_retries=1,max_length=4096"
    if kind == "completions":  # which puts the template around the question itself
        arguments += f",tokenizer={weights_path('pocket')},tokenizer_backend=huggingface,tokenized_requests=True"
    run(
        *(BIN / "lm_eval", "run", "--model", f"local-{kind}", "--model_args", arguments, "--apply_chat_template"),
        *("--tasks", "pocket_problems", "--include_path", tmp_path, "--output_path", tmp_path / "out", "--log_samples"),
        environment=ENVIRONMENT,
        folder=tmp_path,
    )
    (log,) = tmp_path.glob("out/**/samples_*.jsonl")
    samples = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted((row["doc"]["id"], row["exact_match"] == 1.0) for row in samples) == correct(records)


def test_the_traces_are_those_of_batch(records: list[dict[str, Any]], url: str) -> None:
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        for record in records:
            answer: Any = client.chat.completions.create(
                model="pocket",
                messages=[{"role": "user", "content": record["question"]}],
                seed=record["seed"],
                extra_body={"return_token_ids": True},
            ).to_dict()
            (choice,) = answer["choices"]
            prompt, *rest = record["trace"]["spans"]
            assert answer["prompt_token_ids"] == prompt["token_ids"]
            assert choice["token_ids"] == [token_id for span in rest for token_id in span["token_ids"]]
            assert choice["start_agent"]["answer"] == record["answer"]
