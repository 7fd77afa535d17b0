"""The model card: base model, data, training, settings and versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from start_agent.markdown import table

if TYPE_CHECKING:
    from start_agent.training.sft import TrainReport

_CARD = """---
{head}
---

# {name}

{base} after supervised fine-tuning with start-agent, on chains of thought that call Python. Only the {new} are new; the
tokenizer, its chat template and the configuration are copied from the base model, byte for byte.

The license of the base model applies; also check that of the data.

```
start-agent solve --model {output} "What is 23 to the power of 45 modulo 97?"
```

## Data

{data}
## Training

{training}
Loss curve: `training/loss.csv`, `training/loss.png`{evaluations}.

## Settings

{settings}
## Versions

{versions}"""


def model_card(
    run: Mapping[str, Any], report: TrainReport, versions: Mapping[str, str], source: Mapping[str, str]
) -> str:
    """The text of ``README.md``, with the metadata block of the Hugging Face Hub.

    Args:
        run: the configuration: ``base``, ``base_digest``, ``rows``, ``options``.
        report: the result.
        versions: versions of the packages.
        source: the source of the rows.
    """
    from huggingface_hub import ModelCardData

    base = str(run["base"])
    on_hub = not Path(base).exists() and "/" in base
    data = {
        **source,
        "rows": f"{report.rows:,}",
        "tokens": f"{report.tokens:,}, {report.trained_tokens:,} of them in the loss",
        "sha256 of ids and labels": f"`{report.digest}`",
    }
    training = {
        "optimizer steps": f"{report.steps:,}",
        "trained parameters": f"{report.parameters:,}",
        "loss, first to last": f"{report.first_loss:.4f} to {report.last_loss:.4f} nats per trained token",
        **_evaluated(report),
        "processes": str(report.processes),
        "sha256 of the base (configuration, beginning and end of its weights)": f"`{run['base_digest']}`",
    }
    head = ModelCardData(
        base_model=base if on_hub else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["start-agent", "tool-integrated-reasoning"],
    )
    return _CARD.format(
        head=head.to_yaml(),
        name=Path(report.output).name,
        base=base,
        output=report.output,
        data=table(data),
        training=table(training),
        new="weights" if run["options"].get("merge_adapters", True) else "LoRA adapters",
        evaluations="; on held-out rows: `training/eval.csv`" if report.eval_rows else "",
        settings=table({name: f"`{value}`" for name, value in run["options"].items()}),
        versions=table(versions),
    )


def _evaluated(report: TrainReport) -> dict[str, str]:
    """Results on held-out rows, before and after training; empty if there were none."""
    if not report.eval_rows:
        return {}
    found = {
        f"loss on {report.eval_rows:,} held-out rows, before and after": f"{report.first_eval_loss:.4f} and "
        f"{report.last_eval_loss:.4f} nats per trained token"
    }
    if report.eval_answers:
        found["answers reproduced from the end of the row's thinking, before and after"] = (
            f"{report.first_eval_right:,} and {report.last_eval_right:,} of {report.eval_answers:,}"
        )
    return found
