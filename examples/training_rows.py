"""A run → training rows: the input of a trainer, and which tokens are in the loss.

    python examples/training_rows.py [FOLDER]

On the command line these are ``start-agent batch``, ``select`` and ``rows show``.
"""

import sys
from pathlib import Path

import start_agent
from start_agent.data.dataset import read_rows
from start_agent.data.select import SelectConfig, select
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import IGNORE_INDEX

PROBLEMS = 16


def main(folder: Path) -> list[dict[str, object]]:
    """Solve training problems with hints, keep correct traces that called Python, and show the first row."""
    run = start_agent.evaluate("pocket", split="train", limit=PROBLEMS, hint_probability=1, output_dir=folder / "train")
    config = SelectConfig.of(
        kind="rft",
        runs=(run.path,),
        require_tool=True,  # keep traces that called Python
        hint="drop",  # train on the code, without the hint's sentence; "mask" keeps the sentence, with no loss
        held_out=("pocket",),  # drop rows that are similar to evaluation problems
        output_dir=folder / "rows",
    )
    select(config)
    rows = list(read_rows(config.select.output_dir))
    print(f"{len(rows)} rows of {len(list(run.records(traces=False)))} traces in {config.select.output_dir}")

    tokenizer = Tokenizer.from_pretrained("pocket")
    row = rows[0]
    trained = sum(label != IGNORE_INDEX for label in row["labels"])
    print(f"the first has {len(row['input_ids'])} tokens, {trained} of them in the loss:")
    for token_id, label in zip(row["input_ids"], row["labels"], strict=True):
        text = tokenizer.decode([token_id])
        print(text if label != IGNORE_INDEX else f"\x1b[2m{text}\x1b[0m", end="")  # dim: not in the loss
    print()
    return rows


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/rows"))
