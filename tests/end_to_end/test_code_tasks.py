"""``start-agent batch`` on a code task: a scripted model, real hints, real kernels, programs graded by real tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from start_agent.cli.main import main
from start_agent.engines import registry
from start_agent.engines.base import TurnRequest
from start_agent.engines.scripted import ScriptedEngine, byte_tokenizer
from start_agent.models import BOXED_INSTRUCTION
from start_agent.tokens.tokenizer import Tokenizer
from tests.support.batches import stable

CLASS = "class Solution:\n    def double(self, n: int) -> int:\n        "
TASKS: dict[str, tuple[str, str]] = {
    # The question: what the model tries while it thinks, and its final program.
    "double from stdin": ("print(2 * int('''21'''))", "print(2 * int(input()))"),
    "double small ones from stdin": ("print(2 * int('''21'''))", "n = int(input())\nprint(2 * n if n < 30 else n)"),
    "crash on stdin": ("print(2 * int('''21'''))", "n = int(input())\nprint(2 * n, [][n > 20])"),
    "say nothing": ("print(2 * int('''21'''))", ""),
    "double in a class": (CLASS + "return 2 * n\nprint(Solution().double(21))", CLASS + "return 2 * n"),
    "square in a class": (CLASS + "return n * n\nprint(Solution().double(21))", CLASS + "return n * n"),
    "double in a function": ("def double(n):\n    return n + n\nprint(double(21))", "def double(n):\n    return n + n"),
}
VERDICTS = {
    "double from stdin": ("passed", "3 tests"),
    "double small ones from stdin": ("wrong_output", r"test 3 of 3: it printed '30', not '60'; input '30'"),
    "crash on stdin": ("error", "test 1 of 3: IndexError: list index out of range; input '21'"),
    "say nothing": ("no_answer", "no code block after thinking"),
    "double in a class": ("passed", "3 tests"),
    "square in a class": ("wrong_output", "test 1 of 3: it returned '441', not '42'; input '21'"),
    "double in a function": ("passed", "3 tests"),
}


def script(request: TurnRequest) -> str:
    """Thinks, tries what the hint asks for, and gives its program."""
    text = byte_tokenizer().decode(request.token_ids)
    attempt, program = next(texts for question, texts in TASKS.items() if question in text)
    if "```output\n" in text:
        answer = f"```python\n{program}\n```" if program else "I do not know."
        return f"So it works.\n</think>\n\n{answer}"
    return f"{attempt}\n```\n" if "# Debug: " in text else "This is a matter of one line.\n\nWait, is it?"


def rows(path: Path) -> Path:
    """A file in the form of LiveCodeBench."""
    with path.open("w") as file:
        for number, question in enumerate(TASKS):
            calls = question.endswith(("class", "function"))
            kind = "functional" if calls else "stdin"
            cases = [{"input": str(n), "output": str(2 * n), "testtype": kind} for n in (21, 4, 30)]
            row = {
                "question_id": f"q{number}",
                "question_content": f"Write a program: {question}.\n\nSample Input:\n21\n\nSample Output:\n42",
                "starter_code": CLASS if question.endswith("class") else "",
                "public_test_cases": json.dumps(cases[:1]),
                "private_test_cases": json.dumps(cases[1:]),
                "metadata": json.dumps({"func_name": "double"} if calls else {}),
                "difficulty": "easy" if number % 2 else "hard",
            }
            file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    scripted = replace(registry.ENGINES.find(registry.DEFAULT), make=lambda *given: ScriptedEngine(script))
    monkeypatch.setattr(registry.ENGINES, "find", lambda name: scripted)
    monkeypatch.setattr(ScriptedEngine, "instruction", BOXED_INSTRUCTION)  # as of a model that says no other
    monkeypatch.setattr(Tokenizer, "from_pretrained", lambda *given, **options: byte_tokenizer())
    data, model = rows(tmp_path / "problems.jsonl"), tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    hints = ["--hint-probability", "1", "--end-of-think-hints", "0", "--kernels", "2"]
    options = ["batch", "--task", "livecodebench", "--data", str(data), "--model", str(model), *hints]
    return [*options, "--output-dir", str(tmp_path / "run")]


def spans(record: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [span for span in record["trace"]["spans"] if span["kind"] == kind]


def test_programs_are_hinted_run_and_graded(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options) == 0
    said = capsys.readouterr()
    records = {next(name for name in TASKS if f"{name}." in record["question"]): record
               for record in stable(tmp_path / "run").values()}  # fmt: skip
    assert {name: (record["verdict"]["reason"], record["verdict"]["detail"]) for name, record in records.items()} == (
        VERDICTS
    )
    assert {name for name, record in records.items() if record["correct"]} == {
        name for name, (reason, _) in VERDICTS.items() if reason == "passed"
    }
    for name, record in records.items():
        template = "class" if "class" in name else "function" if "function" in name else "stdin"
        (hint,) = spans(record, "hint")
        assert hint["cause"].startswith(f"code.debug.{template}.connective.")
        (output,) = spans(record, "tool_output")
        assert output["text"].lstrip() == ("```output\n441\n```\n" if "square" in name else "```output\n42\n```\n")
        assert record["outcome"] == ("no_answer" if name == "say nothing" else "answered")
        (prompt,) = spans(record, "prompt")
        wanted = "reads its input from standard input" if template == "stdin" else "fills in the starter code"
        assert wanted in prompt["text"] and "Sample Input:\n21" in prompt["text"]
        assert ("starter code:\n\n```python\nclass Solution" in prompt["text"]) == (template == "class")
    for words in ("42.9%", "passed 3", "wrong_output 2", "error 1", "no_answer 1", "by level"):
        assert words in said.out
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (config["decoding"]["domain"], config["decoding"]["template"]) == ("code", None)
    assert main(options) == 0
    assert "nothing is pending" in capsys.readouterr().err


def test_a_template_or_a_domain_that_is_named_stays(tmp_path: Path, options: list[str]) -> None:
    assert main([*options, "--template", "class", "--limit", "1"]) == 0
    (record,) = stable(tmp_path / "run").values()
    assert spans(record, "hint")[0]["cause"].startswith("code.debug.class.")
    assert main([*options[:-1], str(tmp_path / "math"), "--domain", "math", "--limit", "1", "--no-hints"]) == 0
    config = json.loads((tmp_path / "math" / "config.json").read_text())["config"]
    assert config["decoding"]["domain"] == "math"
