"""Folders that version 0.1.0 wrote (``tests/fixtures/b7da6f6``) are read, resumed and exported by this one.

The commands are those of ``make.sh`` there, word for word: whoever has such a folder has such a command.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hints import HintLibrary
from start_agent.analysis.summary import summarize
from start_agent.batch.store import RECORDS, read_records
from start_agent.data.dataset import MANIFEST, check, need_data, read_rows
from start_agent.data.export import Format, export
from start_agent.decoding.replay import replay
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines.transformers import TransformersEngine
from start_agent.models import resolve
from start_agent.papers.reproduce import ReproduceOptions, parts_of, reproduce_stages
from start_agent.recipes.hint_rft import Parts, stages_of
from start_agent.recipes.star.store import read_iterations, read_solved
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import SpanKind, Trace, TraceOutcome
from tests.support.commands import start_agent

pytest.importorskip("trl")

OLD = Path(__file__).parents[1] / "fixtures" / "b7da6f6"

PROBLEMS = ["--data", "problems.jsonl", "--question-column", "question", "--answer-column", "answer"]
BATCH = ["batch", *PROBLEMS, "--threads", "1", "--kernels", "2", "--max-tokens", "600"]
RUNS: dict[str, list[str]] = {
    "alone": ["--no-hints"],
    "hinted": ["--hint-probability", "1", "--rounds", "1"],
    "sampled": [
        *("--hint-files", "hints.yaml", "--samples", "2"),
        *("--temperature", "0.6", "--seed", "3", "--max-batch", "8"),
    ],
}
SELECT = ["select", "--kind", "hint-rft", "--greedy", "alone", "--runs", "hinted", "--held-out", "held-out.jsonl"]
SFT = ["sft", "--recipe", "sft.yaml", "--model", "base", "--data", "data"]
HINT_RFT = ["hint-rft", "--recipe", "recipe.yaml", "--output-dir", "recipe"]
STAR = [
    *("star", "--data", "sums.jsonl", "--question-column", "question", "--answer-column", "answer"),
    *("--model", "star-base", "--rationales", "rationales.yaml", "--dev", "6", "--held-out", "4"),
    *("--max-new-tokens", "60", "--iterations", "2", "--first-steps", "2", "--few-shot", "never"),
    *("--batch-size", "4", "--micro-batch", "4", "--no-bf16", "--no-gradient-checkpointing", "--threads", "1"),
    *("--learning-rate", "1e-4", "--max-length", "256", "--device", "cpu", "--output-dir", "star"),
]
ADDITION = ["star", "addition", "--make-base", "--iterations", "1", "--problems", "15", "--first-steps", "2"]
ADDITION += ["--evaluated", "10", "--output-dir", "addition"]


@pytest.fixture(autouse=True)
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folders, in which the commands are given."""
    folder = tmp_path / "old"
    shutil.copytree(OLD, folder)
    monkeypatch.chdir(folder)
    return folder


def done(*arguments: object) -> str:
    """What a command prints, which must succeed."""
    found = start_agent(*arguments)
    assert found.returncode == 0, found.stderr
    return found.stdout


def files(folder: Path) -> dict[str, bytes]:
    """All files of a folder but the locks, which each start writes."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def problems_of(records: Iterable[Mapping[str, Any]]) -> set[str]:
    return {record["problem"] for record in records}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_pretrained(resolve("pocket").location)


class TestRuns:
    @pytest.mark.parametrize("name", RUNS)
    def test_the_summary_says_what_it_said_then(self, old: Path, name: str) -> None:
        then = json.loads((old / name / "summary.json").read_text())
        now = json.loads(json.dumps(asdict(summarize(old / name, then["samples"]))))
        assert now == now | {key: value for key, value in then.items() if key not in ("owed", "this_start")}

    def test_two_are_compared(self) -> None:
        found = json.loads(done("compare", "--json", "alone", "hinted"))
        assert found["problems"] == 4
        assert [side["accuracy"] for side in found["sides"]] == [0.5, 1.0]

    @pytest.mark.parametrize("name", RUNS)
    def test_traces_are_read_written_and_replayed(self, old: Path, name: str, tokenizer: Tokenizer) -> None:
        hints = HintLibrary.load(old / "hints.yaml") if name == "sampled" else None
        for record in read_records(old / name):
            trace = Trace.from_json(record["trace"])
            assert trace.to_json(tokenizer.decode) == record["trace"]
            replay(trace, tokenizer, hints)

    @pytest.mark.parametrize("name", RUNS)
    def test_the_same_command_finds_nothing_pending(self, old: Path, name: str) -> None:
        before = (old / name / RECORDS).read_bytes()
        done(*BATCH, "--limit", 4, *RUNS[name], "--output-dir", name)
        assert (old / name / RECORDS).read_bytes() == before
        assert json.loads((old / name / "summary.json").read_text())["this_start"]["records"] == 0

    @pytest.mark.parametrize("name", ["hinted", "sampled"])
    def test_so_does_the_command_by_the_names_of_today(self, old: Path, name: str) -> None:
        before = (old / name / RECORDS).read_bytes()
        renamed = {"--rounds": "--end-of-think-hints", "--max-batch": "--max-num-seqs"}
        assert set(renamed) & set(RUNS[name])
        done(*BATCH, "--limit", 4, *(renamed.get(word, word) for word in RUNS[name]), "--output-dir", name)
        assert (old / name / RECORDS).read_bytes() == before

    @pytest.mark.parametrize("name", ["hinted", "sampled"])
    def test_a_greater_limit_adds_to_it(self, old: Path, name: str) -> None:
        before = (old / name / RECORDS).read_bytes()
        done(*BATCH, "--limit", 6, *RUNS[name], "--output-dir", name)
        assert (old / name / RECORDS).read_bytes().startswith(before)
        records = list(read_records(old / name))
        assert len(problems_of(records)) == 6 and len(records) == 6 * (2 if name == "sampled" else 1)
        # A run that is half old, half new is one run to all that read it.
        assert json.loads(done("compare", "--json", "alone", name))["problems"] == 4
        assert summarize(old / name, 2).problems == 6

    def test_more_samples_and_a_torn_last_line(self, old: Path) -> None:
        records = old / "sampled" / RECORDS
        before = records.read_bytes()
        records.write_bytes(before[:-40])
        more = [{"2": "3"}.get(word, word) for word in RUNS["sampled"]]
        done(*BATCH, "--limit", 4, *more, "--output-dir", "sampled")
        whole = before.rpartition(b"\n{")[0]
        assert records.read_bytes().startswith(whole)
        assert len({record["key"] for record in read_records(old / "sampled")}) == 12

    def test_other_options_are_still_refused(self, old: Path) -> None:
        before = files(old / "hinted")
        found = start_agent(*BATCH, "--limit", 4, *RUNS["hinted"], "--max-tool-calls", 2, "--output-dir", "hinted")
        assert found.returncode == 2
        assert "--max-tool-calls: 6 there, 2 now" in found.stderr
        assert files(old / "hinted") == before


class TestData:
    def test_rows_of_its_runs_are_selected_again(self, old: Path) -> None:
        done(*SELECT, "--repair", "--output-dir", "again")
        again = [{**row, "answer_begins": None} for row in read_rows(old / "again")]
        assert again == [{**row, "answer_begins": None} for row in read_rows(old / "data")]  # which 0.1.0 did not note

    def test_rows_are_selected_from_samples(self, old: Path) -> None:
        done("select", "--kind", "rft", "--runs", "sampled", "--choice", "diverse", "--output-dir", "rft")
        assert len(list(read_rows(old / "rft"))) == 4

    def test_it_is_read_and_held_against_its_runs(self, old: Path) -> None:
        assert need_data(old / "data").rows == len(list(read_rows(old / "data"))) == 2
        assert check(old / "data").good

    def test_the_same_command_finds_it_there(self, old: Path) -> None:
        """Version 0.1.0 repaired traces unasked; what it selected is there for whoever asks for repairs."""
        before = files(old / "data")
        done(*SELECT, "--repair", "--output-dir", "data")
        assert files(old / "data") == before
        found = start_agent(*SELECT, "--output-dir", "data")
        assert found.returncode == 2
        assert "--repair: true there, false now" in found.stderr

    @pytest.mark.parametrize("form", list(Format))
    def test_it_is_exported(self, old: Path, form: Format) -> None:
        place = export(old / "data", old / "export", form)
        assert place.exists()
        assert json.loads((old / "export" / MANIFEST).read_text())["rows"] == 2
        if form is Format.JSONL:
            assert [json.loads(line) for line in place.read_text().splitlines()] == list(read_rows(old / "data"))

    def test_a_row_is_shown(self) -> None:
        assert done("rows", "show", "data", "--index", 1).startswith("⟦<|im_start|>user")


class TestTraining:
    @pytest.mark.parametrize(("name", "flags"), [("stopped", []), ("stopped-lora", ["--lora-rank", "2"])])
    def test_a_stopped_run_resumes_from_its_checkpoint(self, old: Path, name: str, flags: list[str]) -> None:
        state = old / name / "training" / "checkpoint-2" / "trainer_state.json"
        content = json.loads(state.read_text())
        content["log_history"][0]["loss"] = 99.0  # a run that started over would not have it
        state.write_text(json.dumps(content))
        command = [*SFT, "--max-steps", "4", *flags, "--output-dir"]
        done(*command, name)
        done(*command, "whole")

        with (old / name / "training" / "loss.csv").open() as file:
            steps = list(csv.DictReader(file))
        assert [int(step["step"]) for step in steps] == [1, 2, 3, 4]
        assert float(steps[0]["loss"]) == 99.0
        report, whole = (json.loads((old / folder / "training/report.json").read_text()) for folder in (name, "whole"))
        assert (report["steps"], report["last_loss"]) == (4, pytest.approx(whole["last_loss"], rel=1e-4))
        assert weights_agree(old / name, old / "whole")
        assert not list((old / name / "training").glob("checkpoint-*"))

    def test_a_finished_run_is_finished(self, old: Path) -> None:
        before = files(old / "model")
        done(*SFT, "--max-steps", 2, "--output-dir", "model")
        assert files(old / "model") == before

    def test_its_rows_are_evaluated_on(self, old: Path) -> None:
        done(*SFT, "--max-steps", 2, "--eval-data", "recipe/start-data", "--output-dir", "evaluated")
        report = json.loads((old / "evaluated/training/report.json").read_text())
        assert (report["eval_rows"], report["eval_answers"]) == (2, 0)  # 0.1.0 did not note where answers begin

    def test_other_settings_are_still_refused(self, old: Path) -> None:
        before = files(old / "stopped")
        found = start_agent(*SFT, "--max-steps", 5, "--output-dir", "stopped")
        assert found.returncode == 2
        assert "--max-steps: 4 there, 5 now" in found.stderr
        assert files(old / "stopped") == before

    async def test_the_model_is_loaded(self, old: Path) -> None:
        async with TransformersEngine(str(old / "model")) as engine:
            settings = DecodingSettings(hints=False, tools=False, max_tokens=8)
            trace = await Solver(engine, None, settings=settings).solve("What is 1 + 1?")
        assert trace.outcome is TraceOutcome.TOKEN_LIMIT
        assert trace.count(SpanKind.MODEL) == 8


def weights_agree(one: Path, other: Path) -> bool:
    import torch
    from safetensors.torch import load_file

    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.allclose(first[name], second[name]) for name in first)


class TestRecipe:
    def test_done_stages_are_not_done_again(self, old: Path) -> None:
        before = files(old / "recipe")
        assert done(*HINT_RFT) == f"{Path('recipe/start')}\n"
        assert files(old / "recipe") == before

    @pytest.mark.timeout(300)
    def test_what_was_not_done_is_done(self, old: Path) -> None:
        """As if it had been killed in the hinted run and before the last training."""
        recipe = old / "recipe"
        (recipe / "stages/hinted.json").unlink()
        records = recipe / "hinted" / RECORDS
        lines = records.read_bytes().splitlines(keepends=True)
        records.write_bytes(b"".join(lines[:-1]))
        (recipe / "stages/start.json").unlink()
        before = files(recipe)
        done(*HINT_RFT)
        after = files(recipe)
        assert {name for name in before if after[name] != before[name]} == {
            "hinted/config.json",
            f"hinted/{RECORDS}",
            "hinted/summary.json",
            "logs/hinted.log",
            "logs/start.log",
        }
        assert after[f"hinted/{RECORDS}"].startswith(before[f"hinted/{RECORDS}"])
        assert {"stages/hinted.json", "stages/start.json", "start/model.safetensors"} <= after.keys() - before.keys()

    @pytest.mark.parametrize(
        "more",
        [
            pytest.param(["--seed", "1"], id="seed"),
            pytest.param(["--sampling-temperature", "0.7"], id="sampling"),
            pytest.param(["--limit", "5"], id="problems"),
            pytest.param(["--hint", "drop"], id="loss"),
            pytest.param(["--sft", "sft.yaml"], id="training"),
        ],
    )
    def test_other_options_are_still_refused(self, old: Path, more: list[str]) -> None:
        before = files(old / "recipe")
        assert start_agent(*HINT_RFT, *more).returncode == 2
        assert files(old / "recipe") == before

    def test_the_stages_of_all_recipes_are_those_of_their_marks(
        self, old: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        columns = {"data": "problems.jsonl", "question_column": "question", "answer_column": "answer"}
        given = {"model": "pocket", "output_dir": Path("out")}
        whole = ReproduceOptions(output_dir=Path("out"))
        quick = whole.model_copy(update={"quick": True})
        recipes = {
            "pocket": stages_of(Parts.from_layers("pocket", given | {"sampling_rounds": 2})),
            "start-32b": stages_of(Parts.from_layers("start-32b", given | columns | {"seed": 1})),
            "reproduce": reproduce_stages(parts_of(whole), whole),
            "reproduce --quick": reproduce_stages(parts_of(quick), quick),
        }
        stages = {(name, stage.name): stage for name, found in recipes.items() for stage in found}
        marks = [json.loads(line) for line in (old / "commands.jsonl").read_text().splitlines()]
        assert {(mark["recipe"], mark["stage"]) for mark in marks} == stages.keys()
        different = [mark for mark in marks if not stages[mark["recipe"], mark["stage"]].same_as(mark)]
        assert not different
        for mark in marks:
            elsewhere = [word.replace("out/", "elsewhere/") for word in mark["command"]]
            assert not stages[mark["recipe"], mark["stage"]].same_as({"command": elsewhere})
        assert not caplog.records  # no old name was used


class TestStar:
    def test_iterations_are_read(self, old: Path) -> None:
        base, first = read_iterations(old / "star")
        assert (base.number, first.number, first.steps, first.tried) == (0, 1, 2, 14)
        rows = (old / "star/iteration-01/rows.jsonl").read_text().splitlines()
        assert first.generated + first.rationalized == len(rows)
        assert len(read_solved(old / "star", 1)) == 4

    def test_a_stopped_run_resumes(self, old: Path) -> None:
        before = files(old / "star")
        done(*STAR)
        after = files(old / "star")
        assert {name for name in before if after[name] != before[name]} <= {"config.json", RECORDS}
        assert after[RECORDS].startswith(before[RECORDS])
        assert [iteration.number for iteration in read_iterations(old / "star")] == [0, 1, 2]
        assert "iteration-02/model/model.safetensors" in after

    def test_other_options_are_still_refused(self, old: Path) -> None:
        found = start_agent(*STAR, "--no-rationalize")
        assert found.returncode == 2
        assert "--rationalize: true there, false now" in found.stderr

    def test_the_finished_miniature_is_reported_again(self, old: Path) -> None:
        shutil.copytree(old / "star-base", old / "addition" / "base")
        before = files(old / "addition")
        done(*ADDITION)
        after = files(old / "addition")
        changed = {name for name in before if after[name] != before[name]}
        assert changed <= {"report.json", "report.md", "config.json", "with/config.json", "without/config.json"}
        now, then = (json.loads(content["report.json"]) for content in (after, before))
        assert (now["variants"], now["direct"]) == (then["variants"], then["direct"])
