"""Exports a data folder to the formats of other tools.

============  ====================================================================================================
datasets      a folder for ``datasets.load_from_disk``: all columns, and the card
jsonl         a file of JSON lines: all columns
trl           a Parquet file of ``input_ids``, ``labels`` and ``assistant_masks``, which TRL's SFTTrainer reads
              directly. All three, since versions of TRL differ in which of them survive packing
sharegpt      a JSON file of ``conversations``: human, gpt, observation
verl          a Parquet file: ``prompt`` (messages), ``prompt_ids``, ``response_ids`` and ``response_mask`` as in its
              agent loop, ``reward_model`` with the gold answer for RL
============  ====================================================================================================

Only datasets, jsonl, trl and verl include the mask; ShareGPT has no field for one. Exported messages are not what the
model saw: a trainer renders them with a chat template, which drops earlier thinking for many models, and its loss
includes hints and tool outputs. ``NOTES`` has a warning for these formats.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from start_agent.data.dataset import CARD, MANIFEST, need_data, read_rows
from start_agent.errors import DataError, MissingExtraError
from start_agent.files import write_json


class Format(StrEnum):
    """An export format."""

    DATASETS = "datasets"
    JSONL = "jsonl"
    TRL = "trl"
    SHAREGPT = "sharegpt"
    VERL = "verl"


FILES = {
    Format.DATASETS: "",
    Format.JSONL: "train.jsonl",
    Format.TRL: "train.parquet",
    Format.SHAREGPT: "train.json",
    Format.VERL: "train.parquet",
}
"""File name of the rows in the folder of an export; for ``datasets`` it is the folder itself."""

_COPY = "train on input_ids and labels; the messages are a readable copy, which a chat template renders differently"
NOTES = {
    Format.DATASETS: _COPY,
    Format.JSONL: _COPY,
    Format.SHAREGPT: "a trainer renders these conversations with its own template, which changes the text of the "
    "traces, and includes hints and outputs in the loss; for training use the format trl",
}
"""Warnings for training on an export, by format; shown on export and in its card."""


def export(data: Path, output: Path, form: Format) -> Path:
    """Export a data folder, with its card and manifest. Returns the path of the rows.

    The output is created atomically: a killed process leaves a temporary folder, which the next export replaces.

    Raises:
        DataError: the data cannot be read, the output exists already, or it cannot be written.
        MissingExtraError: the package ``datasets`` is not installed.
    """
    found = need_data(data)
    if output.exists():
        raise DataError(f"{output} exists already: choose another --output-dir, or remove it")
    temporary = output.with_name(output.name + ".new")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _WRITERS[form](data, temporary)
        write_json(temporary / MANIFEST, found.to_json())
        card = (data / CARD).read_text(encoding="utf-8")
        note = f"\n> **Note:** {NOTES[form]}.\n" if form in NOTES else ""
        (temporary / CARD).write_text(card + note, encoding="utf-8")
        temporary.replace(output)
    except OSError as error:
        raise DataError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return output / FILES[form]


def push(data: Path, repository: str) -> str:
    """Upload a data folder's rows, card and manifest to the Hub as a *private* data set. Returns its URL.

    Raises:
        DataError: the data cannot be read, the Hub rejects it, or there is a public data set with that name.
        MissingExtraError: the package ``datasets`` is not installed.
    """
    need_data(data)
    with _arrow(map(_flat, read_rows(data)), _ALL_COLUMNS) as rows:
        from huggingface_hub import DatasetCard, HfApi

        hub = HfApi()
        try:
            card = DatasetCard.load(data / CARD)  # read before anything is uploaded
            if hub.repo_exists(repository, repo_type="dataset") and not hub.dataset_info(repository).private:
                raise DataError("a public data set with that name exists: choose another name, or make it private")
            rows.push_to_hub(repository, private=True)  # has effect only if it creates the data set
            hub.upload_file(
                path_or_fileobj=str(data / MANIFEST),
                path_in_repo=MANIFEST,
                repo_id=repository,
                repo_type="dataset",
            )
            card.push_to_hub(repository)  # replaces the card that was uploaded with the rows
        except Exception as error:  # the Hub's client and its HTTP library raise many types
            raise DataError(f"cannot upload to {repository}: {' '.join(str(error).split())[:300]}") from error
    return f"https://huggingface.co/datasets/{repository}"


def _write_datasets(data: Path, folder: Path) -> None:
    with _arrow(map(_flat, read_rows(data)), _ALL_COLUMNS) as rows:
        rows.save_to_disk(str(folder))


def _write_trl(data: Path, folder: Path) -> None:
    with _arrow(({name: row[name] for name in _TRL_COLUMNS} for row in read_rows(data)), _TRL_COLUMNS) as rows:
        rows.to_parquet(str(folder / FILES[Format.TRL]))


def _write_verl(data: Path, folder: Path) -> None:
    with _arrow(map(_verl, read_rows(data)), _VERL_COLUMNS) as rows:
        rows.to_parquet(str(folder / FILES[Format.VERL]))


def _write_jsonl(data: Path, folder: Path) -> None:
    with (folder / FILES[Format.JSONL]).open("w", encoding="utf-8") as file:
        for row in read_rows(data):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_sharegpt(data: Path, folder: Path) -> None:
    """Write one JSON list, row by row."""
    with (folder / FILES[Format.SHAREGPT]).open("w", encoding="utf-8") as file:
        for number, row in enumerate(read_rows(data)):
            kept = {"id": row["key"], "conversations": _conversations(row), "tools": json.dumps(row["tools"])}
            file.write(("[\n" if number == 0 else ",\n") + json.dumps(kept, ensure_ascii=False))
        file.write("\n]\n")


_WRITERS: dict[Format, Callable[[Path, Path], None]] = {
    Format.DATASETS: _write_datasets,
    Format.JSONL: _write_jsonl,
    Format.TRL: _write_trl,
    Format.SHAREGPT: _write_sharegpt,
    Format.VERL: _write_verl,
}


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row with uniform column types: tool calls, which few messages have, are encoded as JSON."""
    found = [
        {
            "role": message["role"],
            "content": message["content"],
            "reasoning_content": message.get("reasoning_content", ""),
            "tool_calls": json.dumps(message.get("tool_calls", []), ensure_ascii=False),
        }
        for message in row["messages"]
    ]
    return row | {"messages": found, "tools": json.dumps(row["tools"])}


def _conversations(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """The turns of ``human``, of ``gpt`` (verbatim, including hints), and each ``observation``."""
    said = {"system": "system", "user": "human"}
    asked = (message for message in row["messages"] if message["role"] in said)
    found = [{"from": said[message["role"]], "value": message["content"]} for message in asked]
    for span in row["spans"]:
        author = {"prompt": None, "model": "gpt", "hint": "gpt"}.get(span["kind"], "observation")
        if author == found[-1]["from"]:
            found[-1]["value"] += span["text"]
        elif author is not None:
            found.append({"from": author, "value": span["text"]})
    return found


def _verl(row: Mapping[str, Any]) -> dict[str, Any]:
    ids, masks = row["input_ids"], row["assistant_masks"]
    begin = row["spans"][0]["length"] if row["spans"][0]["kind"] == "prompt" else 0
    asked = [message for message in row["messages"] if message["role"] in ("system", "user")]
    return {
        "data_source": "start-agent",
        "prompt": [{"role": message["role"], "content": message["content"]} for message in asked],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": row["gold"]},
        "extra_info": {"key": row["key"], "problem": row["problem"], "hint_loss": row["hint_loss"]},
        "prompt_ids": ids[:begin],
        "response_ids": ids[begin:],
        "response_mask": masks[begin:],
    }


@contextmanager
def _arrow(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Any]) -> Generator[Any, None, None]:
    """A ``datasets.Dataset`` of rows on disk, which exists as long as the context."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "data") from error
    features = datasets.Features({name: _feature(datasets, kind) for name, kind in columns.items()})
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        with TemporaryDirectory(ignore_cleanup_errors=True) as cache:
            yield datasets.Dataset.from_generator(
                lambda: iter(rows), features=features, cache_dir=cache, fingerprint=uuid4().hex
            )
    finally:
        if shown:
            datasets.enable_progress_bars()


def _feature(datasets: Any, kind: Any) -> Any:
    """The ``datasets`` type of a column, given as the name of a type, or as a list or an object of types."""
    if isinstance(kind, list):
        return datasets.List(_feature(datasets, kind[0]))
    if isinstance(kind, dict):
        return {name: _feature(datasets, part) for name, part in kind.items()}
    return datasets.Value(kind)


_TRL_COLUMNS: dict[str, Any] = {"input_ids": ["int32"], "labels": ["int32"], "assistant_masks": ["int8"]}

_ALL_COLUMNS: dict[str, Any] = {
    **dict.fromkeys(("key", "problem"), "string"),
    "sample": "int32",
    **dict.fromkeys(("question", "gold", "answer", "run", "source"), "string"),
    **_TRL_COLUMNS,
    "spans": [{"kind": "string", "length": "int32", "text": "string"}],
    "hint_loss": "string",
    "modifications": ["string"],
    "answer_begins": "int32",
    "messages": [dict.fromkeys(("role", "content", "reasoning_content", "tool_calls"), "string")],
    "tools": "string",
}

_VERL_COLUMNS: dict[str, Any] = {
    "data_source": "string",
    "prompt": [{"role": "string", "content": "string"}],
    "ability": "string",
    "reward_model": {"style": "string", "ground_truth": "string"},
    "extra_info": {"key": "string", "problem": "string", "hint_loss": "string"},
    "prompt_ids": ["int32"],
    "response_ids": ["int32"],
    "response_mask": ["int8"],
}
