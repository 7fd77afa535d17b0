"""``start-agent sft`` as one of several processes, each of which writes a hash of its final weights."""

from __future__ import annotations

import os
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from start_agent.cli.main import main
from start_agent.training import trainer as training

HASHES = "rank-*.sha256"


def state_hash(model: Any) -> str:
    """sha256 over the names and the values of a model's weights."""
    total = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().float().numpy().tobytes())
    return total.hexdigest()


if __name__ == "__main__":
    folder, arguments = Path(sys.argv[1]), sys.argv[2:]
    save = training._weights

    def save_and_report(trainer: training.RowsTrainer, base: Path, work: Path) -> Path:
        model = trainer.accelerator.unwrap_model(trainer.model)
        (folder / HASHES.replace("*", os.environ["RANK"])).write_text(state_hash(model))
        return save(trainer, base, work)

    training._weights = save_and_report
    sys.exit(main(["sft", *arguments]))
