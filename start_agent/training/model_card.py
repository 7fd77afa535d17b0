"""The model card: what was trained, from what, on what, how."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from start_agent.training.sft import TrainReport

_CARD = """---
{base_model}library_name: transformers
pipeline_tag: text-generation
tags:
- start-agent
- tool-integrated-reasoning
# license: the base's; mind that of the data
---

# {name}

{base} after supervised fine-tuning by start-agent, on long thoughts that call Python. Only the weights are new; the
tokenizer, its chat template and the configuration are the base's, byte for byte.

```
start-agent solve --model {output} "What is 23 to the power of 45 modulo 97?"
```

## Data

{data}

## Training

{training}

The loss over the steps: `training/loss.csv`, `training/loss.png`.

## Settings

{settings}

## Versions

{versions}
"""


def model_card(
    run: Mapping[str, Any], report: TrainReport, versions: Mapping[str, str], source: Mapping[str, str]
) -> str:
    """The text of ``README.md``.

    Args:
        run: what was asked for: ``base``, ``base_digest``, ``rows``, ``options``.
        report: what came of it.
        versions: of the packages.
        source: where the rows came from.
    """
    base = str(run["base"])
    on_hub = not Path(base).exists() and "/" in base
    data = {
        **source,
        "rows": f"{report.rows:,}",
        "tokens": f"{report.tokens:,}, {report.trained_tokens:,} of them in the loss",
        "sha256 over ids and labels": f"`{report.digest}`",
    }
    training = {
        "optimizer steps": f"{report.steps:,}",
        "trained parameters": f"{report.parameters:,}",
        "loss, first to last": f"{report.first_loss:.4f} to {report.last_loss:.4f} nats per trained token",
        "processes": str(report.processes),
        "sha256 of the base (configuration, ends of its weights)": f"`{run['base_digest']}`",
    }
    return _CARD.format(
        base_model=f"base_model: {base}\n" if on_hub else "",
        name=Path(report.output).name,
        base=base,
        output=report.output,
        data=_table(data),
        training=_table(training),
        settings=_table({name: f"`{value}`" for name, value in run["options"].items()}),
        versions=_table(versions),
    )


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
