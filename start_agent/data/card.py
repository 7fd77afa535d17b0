"""The dataset card: the content of a data folder and how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from start_agent.markdown import table

_TAGS = ["start-agent", "tool-integrated-reasoning"]

_HEAD = """# {title}

{rows:,} rows, {tokens:,} tokens, {trained:,} of them in the loss. Made by start-agent: chains of thought that call
Python, one complete trace per row. Trainers read the columns `input_ids`, `labels` (-100: no loss) and
`assistant_masks`; `messages` and `tools` are a readable copy and must not be rendered for training.

Choose a license; check those of the problems and of the model that generated the traces.
"""

_TITLES = {
    "hint-rft": "Hinted traces of problems that the model does not solve without hints (Hint-RFT)",
    "rft": "Correct traces, at most one per problem (RFT)",
}


def card(manifest: Mapping[str, Any]) -> str:
    """The README.md of a data folder, with the metadata block of the Hugging Face Hub, from its manifest."""
    from huggingface_hub import DatasetCardData

    report, config = manifest["report"], manifest["config"]
    title = _TITLES.get(report["kind"], report["kind"])
    head = DatasetCardData(pretty_name=title, task_categories=["text-generation"], tags=_TAGS)
    parts = [
        f"---\n{head.to_yaml()}\n---\n",
        _HEAD.format(title=title, **{name: manifest[name] for name in ("rows", "tokens", "trained")}),
    ]
    parts.append("## Selection\n\n" + table(selection_counts(report, manifest["refused_rows"])))
    if report["repaired"]:
        parts.append("## Repairs\n\n" + table(report["repaired"]))
    parts.append("## Loss on hints, by rows\n\n" + table(manifest["hint_loss"]))
    parts.append("## Settings\n\n```json\n" + json.dumps(config, indent=2, ensure_ascii=False) + "\n```\n")
    sources = {f"`{run}`": f"`{digest}`" for run, digest in manifest["sources"].items()}
    parts.append("## Sources\n\nThe sha256 of each run's records.\n\n" + table(sources))
    parts.append("## Versions\n\n" + table(manifest["versions"]))
    return "\n".join(parts)


def selection_counts(report: Mapping[str, Any], refused_rows: Mapping[str, int]) -> dict[str, int]:
    """A selection's report as counts that add up: records read, records left out by reason, records kept."""
    counts = {"records read": report["records"], "- incorrect": report["wrong"]}
    if report["kind"] == "hint-rft":
        counts |= {"- correct without a hint": report["greedy_right"], "- no greedy trace": report["no_greedy"]}
    counts |= {f"- {name.replace('_', ' ')}": count for name, count in report["refused"].items()}
    counts["- another trace of the problem was kept"] = report["not_chosen"]
    counts["kept"] = report["kept"]
    return counts | {f"- as a row {name.replace('_', ' ')}": count for name, count in refused_rows.items()}
