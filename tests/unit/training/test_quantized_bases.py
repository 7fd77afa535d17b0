"""Quantized bases are refused before training; GGUF files are models by their path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from start_agent.errors import ModelError
from start_agent.files import MODEL_CONFIG
from start_agent.models import find, local_digests
from start_agent.training.saving import base_folder, quantization


def _folder(path: Path, config: dict[str, Any]) -> Path:
    path.mkdir()
    (path / MODEL_CONFIG).write_text(json.dumps({"model_type": "llama"} | config))
    return path


@pytest.mark.parametrize("method", ["mxfp4", "fp8", "gptq", "awq", "compressed-tensors"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_quantized_base_is_refused(tmp_path: Path, method: str, nested: bool) -> None:
    config: dict[str, Any] = {"quantization_config": {"quant_method": method}}
    folder = _folder(tmp_path / "base", {"text_config": config} if nested else config)
    assert quantization(folder) == method
    with pytest.raises(ModelError, match=method):
        base_folder(str(folder))


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}, {"quantization_config": {}}])
def test_other_bases_are_taken(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = _folder(tmp_path / "base", config)
    assert base_folder(str(folder)) == folder


def test_a_gguf_file_is_found_and_has_a_digest_but_is_not_trained(tmp_path: Path) -> None:
    path = tmp_path / "some model.Q4_K_M.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    assert find(str(path)) == str(path)
    before = local_digests(str(path))
    path.write_bytes(b"GGUF" + bytes(99) + b"1")
    assert before.keys() == {str(path)}
    assert local_digests(str(path)) != before
    with pytest.raises(ModelError, match="GGUF"):
        base_folder(str(path))
    with pytest.raises(ModelError, match="there is no file"):
        find(str(tmp_path / "none.gguf"))
