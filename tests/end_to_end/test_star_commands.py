"""``start-agent star``: the miniature and a set of problems, from the command to the report, run twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from start_agent.cli.main import main
from start_agent.papers.addition.run import shipped_base
from start_agent.papers.addition.text import draw

pytestmark = pytest.mark.timeout(300)

SMALL = ["--iterations", "1", "--problems", "40", "--first-steps", "2", "--evaluated", "20"]
TRAINING = [
    "--batch-size",
    "8",
    "--per-device-train-batch-size",
    "8",
    "--no-bf16",
    "--no-gradient-checkpointing",
    "--threads",
    "1",
]
TRAINING += ["--learning-rate", "1e-4", "--max-length", "256", "--device", "cpu"]

FORM = {
    "question": "Input:\n{question}\nTarget:\n<scratch>\n",
    "hint": "Input:\n{question}\nTarget:\n{answer}\n<scratch>\n",
    "begin": "",
    "conclusion": "\n</scratch>\n{answer}",
}
EXAMPLE = {"question": "3+4", "answer": "7", "rationale": "3+4,C:0\n,7C:0\n07"}


def test_the_miniature_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["star", "addition", "--output-dir", str(tmp_path), *SMALL]
    assert main(command) == 0
    output = capsys.readouterr()
    assert (
        "with rationalization, iteration 1: " in output.err and "without rationalization, iteration 1: " in output.err
    )
    assert output.out.startswith("## STaR: addition")
    report = json.loads((tmp_path / "report.json").read_text())
    assert {name: len(found) for name, found in report["variants"].items()} == {"with": 2, "without": 2}
    assert [record["steps"] for record in report["direct"]] == [2]
    assert report["variants"]["with"][0]["held_out"] == report["variants"]["without"][0]["held_out"]
    assert report["variants"]["without"][1]["rationalized"] == 0 < report["variants"]["with"][1]["rationalized"]
    assert (tmp_path / "addition.png").read_bytes().startswith(b"\x89PNG")
    assert "torch" in report["versions"] and report["options"]["seed"] == 0

    assert main(command) == 0
    again = capsys.readouterr()
    assert "iteration" not in again.err and again.out == output.out

    assert main([*command, "--seed", "1"]) == 2
    assert "--seed: 0 there, 1 now" in capsys.readouterr().err


def test_a_set_of_problems_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sums = [problem for problem, _ in zip(draw(0, "train", (1, 2, 4)), range(40), strict=False)]
    data, rationales, run = tmp_path / "sums.jsonl", tmp_path / "rationales.yaml", tmp_path / "run"
    data.write_text("".join(json.dumps({"q": problem.question, "a": problem.answer}) + "\n" for problem in sums))
    rationales.write_text(yaml.safe_dump({"form": FORM, "rationales": [EXAMPLE]}))
    command = ["star", "--data", str(data), "--question-column", "q", "--answer-column", "a", "--output-dir", str(run)]
    command += ["--model", str(shipped_base()), "--rationales", str(rationales), "--dev", "8", "--held-out", "4"]
    command += ["--max-new-tokens", "100", "--iterations", "1", "--first-steps", "2", *TRAINING]
    command += ["--few-shot", "never"]  # this base knows the form, but has never read several sums at once
    assert main(command) == 0
    output = capsys.readouterr()
    assert "iteration 1: " in output.err and "held-out" in output.err and "has the best score" in output.out
    first = json.loads((run / "records.jsonl").read_text().splitlines()[1])
    assert first["tried"] == 28 and first["generated"] > 10 and first["rationalized"] > 0
    rows = [json.loads(line) for line in (run / "iteration-01" / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == first["generated"] + first["rationalized"]
    assert (run / "iteration-01" / "model" / "model.safetensors").is_file()
    assert json.loads((run / "summary.json").read_text())["best"] in (0, 1)

    assert main(command) == 0
    assert "iteration" not in capsys.readouterr().err
    assert main([*command, "--no-rationalize"]) == 2
    assert "--rationalize: true there, false now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rationales", "none.yaml"], "cannot read"),
        (["--dev", "40"], "reserving 40 + 0 of 10 problems leaves none"),
        (["--model", "./no-such-model"], "there is no folder './no-such-model'"),
        (["--patience", "0"], "--patience"),
        (["--sft", "no-such"], "--config: no recipe 'no-such'"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    (tmp_path / "few.jsonl").write_text("".join(json.dumps({"q": f"{n}+1", "a": str(n + 1)}) + "\n" for n in range(10)))
    (tmp_path / "rationales.yaml").write_text(yaml.safe_dump({"rationales": [EXAMPLE]}))
    command = ["star", "--data", str(tmp_path / "few.jsonl"), "--question-column", "q", "--answer-column", "a"]
    command += ["--model", str(shipped_base()), "--rationales", str(tmp_path / "rationales.yaml")]
    command += ["--output-dir", str(tmp_path / "run"), *arguments]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
