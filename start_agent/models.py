"""Model names: built-in models, local folders, GGUF files and names on the hub."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from start_agent.errors import ModelError, first_line
from start_agent.files import ADAPTERS, MODEL_CONFIG, model_digest
from start_agent.gguf import is_gguf

_POCKET = Path(__file__).parent / "pocket"
EMBEDDED = {"pocket": _POCKET / "weights", "pocket-start": _POCKET / "weights-start"}
"""The built-in models by name, with their folders: the base, and the result of Hint-RFT on it."""

BOXED_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
"""The usual instruction of math evaluations (Qwen2.5-Math, R1)."""

PROMPTING = "start_agent.json"
"""The file in a model's folder with the instruction that it was trained with: ``{"instruction": "..."}``."""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model's location, and the instruction after each question in its prompts."""

    location: str
    instruction: str


@dataclass(frozen=True, slots=True)
class ModelConfigs:
    """A model's configuration files.

    Attributes:
        eos_ids: ids that end a sequence, from ``generation_config.json`` and ``config.json``.
        generation: the content of ``generation_config.json``.
        commit: the commit on the hub; None for a local folder.
    """

    eos_ids: frozenset[int]
    generation: dict[str, Any]
    commit: str | None


def read_configs(location: str, revision: str | None = None) -> ModelConfigs:
    """Read the configuration files of a model's folder or of a model on the hub; missing files count as empty."""
    generation, _ = _read_json(location, "generation_config.json", revision)
    config, commit = _read_json(location, MODEL_CONFIG, revision)
    parts = [generation, config, config.get("text_config")]
    found = [part.get("eos_token_id") for part in parts if isinstance(part, dict)]
    ids = (one for value in found for one in (value if isinstance(value, list) else [value]))
    return ModelConfigs(frozenset(one for one in ids if type(one) is int), generation, commit)


def _read_json(location: str, name: str, revision: str | None) -> tuple[dict[str, Any], str | None]:
    """A JSON file of a model, and its commit on the hub."""
    path, commit = Path(location) / name, None
    if is_gguf(location):
        return {}, None  # a GGUF file has no separate JSON files
    try:
        if not Path(location).is_dir():
            path, commit = _of_the_hub(location, name, revision)
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, commit
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the {name} of {location!r}: {first_line(error)}") from error
    return content if isinstance(content, dict) else {}, commit


@lru_cache
def _of_the_hub(name: str, file: str, revision: str | None) -> tuple[Path, str | None]:
    """A file of a model on the hub, and its commit. Raises ``FileNotFoundError``."""
    from transformers.utils.hub import cached_file, extract_commit_hash

    silent = ("gated_repo", "missing_entries", "connection_errors")
    quiet: dict[str, Any] = {f"_raise_exceptions_for_{what}": False for what in silent}
    found = cached_file(name, file, revision=revision, **quiet)
    if found is None:
        raise FileNotFoundError(file)
    return Path(found), extract_commit_hash(found, None)


def locate(name: str) -> str:
    """Where to load a model from: a built-in or local folder, a GGUF file, or the unchanged name on the hub."""
    path = EMBEDDED.get(name) or Path(name).expanduser()
    return str(path) if path.is_dir() or (is_gguf(path) and path.is_file()) else name


def instruction_for(name: str) -> str:
    """A model's default instruction after each question. Raises ``ModelError``."""
    folder = local_folder(name)
    return BOXED_INSTRUCTION if folder is None else _instruction(folder / PROMPTING)


def resolve(name: str, revision: str | None = None) -> ModelChoice:
    """Resolve a built-in model (``pocket``, ``pocket-start``), a local folder, or a name on the hub.

    A folder may set its model's instruction in ``start_agent.json``: ``{"instruction": "..."}``.

    Raises:
        ModelError: a path that does not exist or is not a model's folder.
    """
    return ModelChoice(find(name, revision), instruction_for(name))


def find(name: str, revision: str | None = None) -> str:
    """Where to load a model from, see ``locate``; a name that is not local is looked up on the hub.

    Raises:
        ModelError: there is no such local model, and the hub does not know it or cannot be reached.
    """
    location = locate(name)
    if name.strip() and Path(location).exists():
        if Path(location).is_file() and not is_gguf(location):
            raise ModelError(f"{name!r} is a file, but not a GGUF file: name the model's folder")
        return location
    if name.startswith((".", "/", "~")) or is_gguf(name) or name.count("/") > 1 or not name.strip():
        kind = "file" if is_gguf(name) else "folder"
        raise ModelError(
            f"there is no {kind} {name!r}: name a model on the hub, a local folder or GGUF file, or {_embedded()}"
        )
    _look_up(name, revision)
    return name


def local_folder(name: str) -> Path | None:
    """The folder of a local model; None for any other name.

    Raises:
        ModelError: the folder is not a model's, or holds adapters without their base.
    """
    path = EMBEDDED.get(name) or Path(name).expanduser()
    if not name.strip() or not path.is_dir():
        return None
    if not (path / MODEL_CONFIG).is_file():
        raise ModelError(f"{name!r} is a folder without a {MODEL_CONFIG}: not a model")
    weights = [*path.glob("*.safetensors"), *path.glob("*.bin")]
    if (path / ADAPTERS).is_file() and all(file.name.startswith("adapter_") for file in weights):
        raise ModelError(f"{name!r} holds only adapters: merge them into their base first (PEFT's merge_and_unload)")
    return path


def local_digests(*names: str) -> dict[str, str]:
    """The digest of each local model by name: a model that is trained again keeps its name but not its digest.

    Raises:
        ModelError: a folder is not a model's or cannot be read.
    """
    found: dict[str, str] = {}
    for name in names:
        path = Path(locate(name)) if is_gguf(locate(name)) else local_folder(name)
        if path is not None and path.exists():
            try:
                found[name] = model_digest(path)
            except OSError as error:
                raise ModelError(f"cannot read the model {path}: {error.strerror}") from error
    return found


def _instruction(path: Path) -> str:
    """The instruction in the file; the usual one if there is no file."""
    try:
        instruction = json.loads(path.read_text(encoding="utf-8"))["instruction"]
    except FileNotFoundError:
        return BOXED_INSTRUCTION
    except (OSError, ValueError, KeyError, TypeError):
        instruction = None
    if not isinstance(instruction, str):
        raise ModelError(f'{path} must hold {{"instruction": "..."}}: fix it, or remove it and use --instruction')
    return instruction


@contextmanager
def quiet_loading(name: str) -> Iterator[None]:
    """Hide transformers' progress bars in the block, unless a user at a terminal waits for a large model."""
    try:
        from transformers.utils import logging
    except ImportError:  # the engine reports what is missing
        yield
        return
    hide = logging.is_progress_bar_enabled() and (name in EMBEDDED or not sys.stderr.isatty())
    if hide:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if hide:
            logging.enable_progress_bar()


def _embedded() -> str:
    return " or ".join(repr(name) for name in EMBEDDED)


@lru_cache
def _look_up(name: str, revision: str | None) -> None:
    """Refuse a name that the hub does not know, before loading retries several times."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        if isinstance(try_to_load_from_cache(name, MODEL_CONFIG, revision=revision), str):
            return
        HfApi().model_info(name, revision=revision, timeout=10)
    except HFValidationError as error:
        raise ModelError(f"{name!r} is neither a folder, a name on the hub, nor {_embedded()}") from error
    except Exception as error:  # the hub's client and its HTTP library raise many types
        raise ModelError(
            f"cannot find the model {name!r} on the hub ({first_line(error)}): "
            f"check the name and the network, or name a local folder, or {_embedded()}"
        ) from error
