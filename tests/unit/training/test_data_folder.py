"""Data folders and exports: written atomically, and read back unchanged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import DatasetCard

from start_agent.data import dataset, export
from start_agent.data.dataset import check, columns_of, need_data, read_data, read_rows, write_data
from start_agent.data.export import Format
from start_agent.data.loss import HintLoss, LossPolicy
from start_agent.data.messages import TOOLS, messages
from start_agent.data.selection import Selection, SelectionOptions, rft
from start_agent.data.views import TraceView
from start_agent.errors import ConfigError, DataError, FolderInUseError, MissingExtraError
from start_agent.trace import SpanKind
from start_agent.training.loading import load_rows
from tests.support.traces import HINTED, QUESTION, M, output, record, run, spelled
from tests.support.vocabularies import Vocabulary, vocabulary

TOKENIZER = vocabulary("pocket").tokenizer
GOOD = spelled(TOKENIZER, *HINTED)
PLAIN = spelled(TOKENIZER, (M, "It is 42.\n</think>\n\n\\boxed{42}", "eos"))
FAILED = spelled(TOKENIZER, (M, "```python\n1 / 0\n```\n", "code_close"), output("bad", "error"), *HINTED[3:])
CONFIG = {"select": {"kind": "rft"}, "loss": {"hint": "mask"}}


@pytest.fixture
def selection(tmp_path: Path) -> Selection:
    records = [record(GOOD, 0, problem="a"), record(PLAIN, 1, problem="b"), record(FAILED, 2, problem="c")]
    return rft([run(tmp_path / "run", records)], TOKENIZER)


@pytest.fixture
def folder(tmp_path: Path, selection: Selection) -> Path:
    write_data(tmp_path / "data", selection, LossPolicy(), config=CONFIG)
    return tmp_path / "data"


def test_rows_manifest_and_card(folder: Path) -> None:
    rows = list(read_rows(folder))
    assert [row["input_ids"] for row in rows] == [GOOD.token_ids, PLAIN.token_ids]
    for row, trace in zip(rows, (GOOD, PLAIN), strict=True):
        assert row["labels"] == trace.labels()
        assert row["assistant_masks"] == [int(kind is SpanKind.MODEL) for kind in trace.kinds()]
        assert sum(span["length"] for span in row["spans"]) == len(row["input_ids"])
        assert "<|im_end|>" not in row["messages"][-1]["content"]
    found = need_data(folder)
    assert (found.rows, found.tokens) == (2, GOOD.count() + PLAIN.count())
    assert found.trained == GOOD.count(SpanKind.MODEL) + PLAIN.count(SpanKind.MODEL)
    assert found.report["refused"] == {"failed_cells": 1}
    card = (folder / "README.md").read_text()
    for expected in ("| - failed cells | 1 |", "| kept | 2 |", '"kind": "rft"', found.versions["start-agent"]):
        assert expected in card
    head: Any = DatasetCard(card).data
    assert (head.pretty_name, head.tags) == (
        "Correct traces, at most one per problem (RFT)",
        ["start-agent", "tool-integrated-reasoning"],
    )


def test_the_same_again_and_another_one(folder: Path, selection: Selection, tmp_path: Path) -> None:
    before = (folder / "rows.jsonl").read_bytes()
    assert read_data(folder, CONFIG) == need_data(folder)
    with pytest.raises(DataError, match=r'--hint: "mask" there, "drop" now'):
        read_data(folder, CONFIG | {"loss": {"hint": "drop"}})
    assert write_data(tmp_path / "again", selection, LossPolicy(), config=CONFIG) == need_data(folder)
    assert (tmp_path / "again" / "rows.jsonl").read_bytes() == before


def test_a_writer_that_dies_leaves_nothing_that_looks_whole(
    tmp_path: Path, selection: Selection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    path = tmp_path / "data"
    for step in ("columns_of", "card", "write_json"):
        with monkeypatch.context() as patched:
            patched.setattr(dataset, step, dying)
            with pytest.raises(KeyboardInterrupt):
                write_data(path, selection, LossPolicy(), config=CONFIG)
        assert read_data(path) is None
        with pytest.raises(DataError, match="start-agent select"):
            list(read_rows(path))
        assert not path.exists()
    assert write_data(path, selection, LossPolicy(), config=CONFIG).rows == 2
    assert sorted(file.name for file in path.iterdir()) == ["README.md", "data.json", "lock", "rows.jsonl"]


def test_what_a_killed_writer_left_is_written_over(folder: Path, selection: Selection, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.mkdir()
    (path / "rows.jsonl.unsorted").write_bytes((folder / "rows.jsonl").read_bytes()[:-100])
    write_data(path, selection, LossPolicy(), config=CONFIG)
    assert (path / "rows.jsonl").read_bytes() == (folder / "rows.jsonl").read_bytes()
    assert list(read_rows(path)) == list(read_rows(folder))


@pytest.mark.parametrize("name", ["README.md", "records.jsonl"])
def test_a_folder_with_something_else_in_it_is_left_alone(name: str, selection: Selection, tmp_path: Path) -> None:
    path = tmp_path / "project"
    path.mkdir()
    (path / name).write_text("mine\n")
    with pytest.raises(DataError, match="overwritten"):
        write_data(path, selection, LossPolicy(), config={})
    assert [(file.name, file.read_text()) for file in path.iterdir()] == [(name, "mine\n")]


def test_two_writers_do_not_meet(tmp_path: Path, selection: Selection, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data"
    other: list[str] = []

    def meanwhile(*arguments: Any) -> dict[str, Any]:
        if not other:
            with pytest.raises(FolderInUseError) as caught:
                write_data(path, selection, LossPolicy(), config={})
            other.append(str(caught.value))
        return columns_of(*arguments)

    monkeypatch.setattr(dataset, "columns_of", meanwhile)
    assert write_data(path, selection, LossPolicy(), config=CONFIG).rows == 2
    assert other
    assert len(list(read_rows(path))) == 2


def test_no_rows_are_an_error_that_says_where_they_went(tmp_path: Path, selection: Selection) -> None:
    with pytest.raises(DataError, match=r"3 records were read .*failed_cells 1, too_long 2"):
        write_data(tmp_path / "none", selection, LossPolicy(), config={}, max_length=5)
    assert read_data(tmp_path / "none") is None


def test_rows_that_are_too_long_are_left_out_and_counted(tmp_path: Path, selection: Selection) -> None:
    found = write_data(tmp_path / "d", selection, LossPolicy(), config={}, max_length=PLAIN.count())
    assert (found.rows, found.refused_rows) == (1, {"too_long": 1})


def test_checking_against_the_runs(folder: Path, tmp_path: Path) -> None:
    assert check(folder).good
    records = tmp_path / "run" / "records.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    first = json.loads(lines[0])
    first["trace"]["spans"][1]["token_ids"][0] += 1
    records.write_text(json.dumps(first) + "\n" + lines[2])
    found = check(folder)
    assert (found.rows, found.changed, found.missing, found.intact) == (2, 1, 1, True)
    rows = folder / "rows.jsonl"
    rows.write_text(rows.read_text().replace('"hint_loss": "mask"', '"hint_loss": "drop"', 1))
    assert not check(folder).intact
    rows.write_text(rows.read_text().splitlines(keepends=True)[0])
    assert (check(folder).rows, check(folder).intact) == (1, False)
    with pytest.raises(DataError):
        list(read_rows(folder))


def test_the_model_of_runs(tmp_path: Path, selection: Selection) -> None:
    assert dataset.model_of(selection.runs) == "pocket"
    with pytest.raises(ConfigError, match="--model"):
        dataset.model_of(())


def test_readable_messages(vocabulary: Vocabulary) -> None:
    reading = TraceView(
        spelled(vocabulary.tokenizer, *HINTED, instruction="Box it.", system="Be kind."), vocabulary.tokenizer
    )
    system, user, first, answer, second, again, last = messages(reading)
    assert system == {"role": "system", "content": "Be kind."}
    assert user == {"role": "user", "content": f"{QUESTION}\n\nBox it."}
    assert first["reasoning_content"].endswith("\n\nWait, maybe using Python here is a good idea.")
    calls = [{"type": "function", "function": {"name": "python", "arguments": {"code": "print(6 * 7)"}}}]
    assert first["tool_calls"] == calls
    assert answer == {"role": "tool", "name": "python", "content": "42"}
    assert second["tool_calls"][0]["function"]["arguments"] == {"code": "print(7 * 6)"}
    assert again["content"] == "42"
    assert last == {"role": "assistant", "reasoning_content": "Right.", "content": "The answer is \\boxed{42}."}
    dropped = messages(reading, hints=False)
    assert dropped[2]["reasoning_content"] == "Let me see, it is 41.\n\nWait"
    assert dropped[3:] == messages(reading)[3:]


def test_messages_of_a_conversation() -> None:
    earlier = [
        {"role": "user", "content": "2+3?"},
        {"role": "assistant", "content": "5", "reasoning_content": "Two and three."},
    ]
    talk = [*earlier, {"role": "user", "content": QUESTION}]
    trace = spelled(TOKENIZER, (M, "</think>42", "eos"), messages=talk, system="Be kind.", instruction="Box it.")
    found = messages(TraceView(trace, TOKENIZER))
    assert found[0] == {"role": "system", "content": "Be kind."} and found[1:3] == earlier
    assert found[3] == {"role": "user", "content": f"{QUESTION}\n\nBox it."}
    assert found[4]["content"] == "42" and len(found) == 5


def test_messages_of_a_model_that_never_closes_its_thinking() -> None:
    found = messages(TraceView(spelled(TOKENIZER, (M, "It is \\boxed{42}.", "eos")), TOKENIZER))
    assert found[1] == {"role": "assistant", "reasoning_content": "", "content": "It is \\boxed{42}."}


def test_messages_suit_a_chat_template() -> None:
    """A copy for people still has to be readable by templates that know tools."""
    pytest.importorskip("transformers")
    from transformers.utils.chat_template_utils import render_jinja_template

    template = (
        "{% for t in tools %}{{ t.function.name }}{% endfor %}{% for m in messages %}[{{ m.role }}]{{ m.content }}"
        "{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments.code }}{% endif %}{% endfor %}"
    )
    found = messages(TraceView(GOOD, TOKENIZER))
    rendered = render_jinja_template(conversations=[found], tools=TOOLS, chat_template=template)[0][0]
    assert rendered.startswith("python[user]What is 6 * 7?[assistant]print(6 * 7)[tool]42")


def test_exports_are_read_back(folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = list(read_rows(folder))
    for form in Format:
        written = export.export(folder, tmp_path / form.value, form)
        assert written.exists()
        card = (tmp_path / form.value / "README.md").read_text()
        assert card.startswith((folder / "README.md").read_text())
        # Whoever trains on what holds messages has to know that they are another text than the traces'.
        assert ("**Note:**" in card) == (form in {Format.DATASETS, Format.JSONL, Format.SHAREGPT})
    whole = list(datasets.load_from_disk(str(tmp_path / "datasets")))
    assert [json.loads(row["tools"]) for row in whole] == [TOOLS, TOOLS]
    for row, back in zip(rows, whole, strict=True):
        for name in row.keys() - {"messages", "tools"}:
            assert back[name] == row[name], name
        calls = [json.loads(message["tool_calls"]) for message in back["messages"]]
        assert calls == [message.get("tool_calls", []) for message in row["messages"]]
    assert [json.loads(line) for line in (tmp_path / "jsonl" / "train.jsonl").read_text().splitlines()] == rows
    cache = str(tmp_path / "cache")
    trl = datasets.Dataset.from_parquet(str(tmp_path / "trl" / "train.parquet"), cache_dir=cache)
    assert list(trl) == [{name: row[name] for name in ("input_ids", "labels", "assistant_masks")} for row in rows]
    verl = list(datasets.Dataset.from_parquet(str(tmp_path / "verl" / "train.parquet"), cache_dir=cache))
    for row, back in zip(rows, verl, strict=True):
        assert back["prompt_ids"] + back["response_ids"] == row["input_ids"]
        assert [0] * len(back["prompt_ids"]) + back["response_mask"] == row["assistant_masks"]
        assert back["prompt"] == [{"role": "user", "content": QUESTION}]
        assert back["reward_model"]["ground_truth"] == "42"
    shared = json.loads((tmp_path / "sharegpt" / "train.json").read_text())
    assert [turn["from"] for turn in shared[0]["conversations"]] == ["human", *["gpt", "observation"] * 2, "gpt"]
    said = "".join(turn["value"] for turn in shared[0]["conversations"][1:])
    assert said == TOKENIZER.decode(GOOD.token_ids[len(GOOD.spans[0].token_ids) : -1])
    with pytest.raises(DataError, match="exists already"):
        export.export(folder, tmp_path / "trl", Format.TRL)


def test_an_export_that_dies_leaves_no_output(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(export, "write_json", dying)
        with pytest.raises(KeyboardInterrupt):
            export.export(folder, tmp_path / "out", Format.JSONL)
    assert not list(tmp_path.glob("out*"))
    export.export(folder, tmp_path / "out", Format.JSONL)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["README.md", "data.json", "train.jsonl"]


def test_an_export_without_its_package_names_the_extra(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError) as caught:
        export.export(folder, tmp_path / "out", Format.TRL)
    assert (caught.value.package, caught.value.extra) == ("datasets", "data")
    assert not list(tmp_path.glob("out*"))


def test_uploads_are_private(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets, hub = pytest.importorskip("datasets"), pytest.importorskip("huggingface_hub")
    uploads: list[Any] = []
    monkeypatch.setattr(
        datasets.Dataset, "push_to_hub", lambda self, name, **options: uploads.append((name, len(self), options))
    )
    monkeypatch.setattr(hub.HfApi, "upload_file", lambda self, **options: uploads.append(options["path_in_repo"]))
    monkeypatch.setattr(hub.DatasetCard, "push_to_hub", lambda self, name: uploads.append((name, self.data.tags)))
    monkeypatch.setattr(hub.HfApi, "repo_exists", lambda self, name, **options: False)
    assert export.push(folder, "me/rows") == "https://huggingface.co/datasets/me/rows"
    assert uploads == [
        ("me/rows", 2, {"private": True}),
        "data.json",
        ("me/rows", ["start-agent", "tool-integrated-reasoning"]),
    ]

    def refusing(self: Any, name: str, **options: Any) -> None:
        raise RuntimeError("401 Unauthorized\nmore")

    monkeypatch.setattr(datasets.Dataset, "push_to_hub", refusing)
    with pytest.raises(DataError, match="cannot upload to me/rows: 401 Unauthorized more"):
        export.push(folder, "me/rows")


@pytest.mark.parametrize("private", [True, False])
def test_nothing_is_uploaded_to_a_public_data_set(folder: Path, monkeypatch: pytest.MonkeyPatch, private: bool) -> None:
    datasets, hub = pytest.importorskip("datasets"), pytest.importorskip("huggingface_hub")
    uploads: list[str] = []
    monkeypatch.setattr(datasets.Dataset, "push_to_hub", lambda self, name, **options: uploads.append(name))
    monkeypatch.setattr(hub.HfApi, "upload_file", lambda self, **options: None)
    monkeypatch.setattr(hub.DatasetCard, "push_to_hub", lambda self, name: None)
    monkeypatch.setattr(hub.HfApi, "repo_exists", lambda self, name, **options: True)
    monkeypatch.setattr(hub.HfApi, "dataset_info", lambda self, name: SimpleNamespace(private=private))
    if private:
        export.push(folder, "me/rows")
    else:
        with pytest.raises(DataError, match="me/rows: a public data set with that name exists"):
            export.push(folder, "me/rows")
    assert uploads == ["me/rows"] * private


def test_a_mix_is_reported(tmp_path: Path) -> None:
    records = [record(GOOD, at, problem=f"p{at}") for at in range(20)]
    chosen = rft([run(tmp_path / "run", records)], TOKENIZER)
    found = write_data(tmp_path / "data", chosen, LossPolicy(hint=HintLoss.MIX), config={})
    assert set(found.hint_loss) == {"mask", "drop"}
    assert sum(found.hint_loss.values()) == 20
    for row in read_rows(tmp_path / "data"):
        said = json.dumps(row["messages"])
        assert ("good idea" in said) == (row["hint_loss"] == "mask")


def test_a_repair_is_reported(tmp_path: Path) -> None:
    rambling = spelled(TOKENIZER, (M, "```python\n6 * 7\n```\n", "code_close"), output("42"), *HINTED[3:-1])
    end = spelled(TOKENIZER, (M, "</think>\n\\boxed{42}\nAnd so on.", "eos")).spans[-1]
    rambling.spans.append(end)
    chosen = rft([run(tmp_path / "run", [record(rambling, 0)])], TOKENIZER, SelectionOptions(repair=True))
    found = write_data(tmp_path / "data", chosen, LossPolicy(), config={})
    [row] = read_rows(tmp_path / "data")
    assert row["modifications"] == ["cut_after_answer"]
    assert found.report["repaired"] == {"cut_after_answer": 1}
    assert check(tmp_path / "data").good  # the source is the trace as it was stored
    assert "| cut_after_answer | 1 |" in (tmp_path / "data" / "README.md").read_text()


def test_training_reads_whole_and_unchanged_folders_alone(folder: Path) -> None:
    assert len(load_rows(folder)) == need_data(folder).rows
    rows = folder / "rows.jsonl"
    rows.write_bytes(rows.read_bytes().replace(b'"labels": [', b'"labels": [ ', 1))
    with pytest.raises(DataError, match="was changed after it was written"):
        load_rows(folder)
    with pytest.raises(DataError, match="was changed after it was written"):
        list(read_rows(folder))
    assert not check(folder).intact
    assert list(read_rows(rows)) and load_rows(rows)  # by its own name it is a file like any other
    (folder / "data.json").unlink()
    for read in (load_rows, lambda path: list(read_rows(path))):
        with pytest.raises(DataError, match="start-agent select"):
            read(folder)


@pytest.mark.parametrize("text", ["[1]\n", '"a"\n', '{"input_ids": ["a"]}\n', "{\n", "\xff"])
def test_what_is_no_row_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"input_ids": [1], "labels": [1]}\n\n' + text.encode("latin-1"))
    with pytest.raises(DataError, match=r"rows\.jsonl(, line 3|: row 1)"):
        load_rows(path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a data folder, a JSONL file of rows, or a folder saved by datasets"):
        load_rows(tmp_path / "none")
