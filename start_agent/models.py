"""Names of models: the ones that ship with the package, and everybody else's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from start_agent.errors import ModelError, first_line
from start_agent.files import ADAPTERS, MODEL_CONFIG, model_digest
from start_agent.gguf import is_gguf

_POCKET = Path(__file__).parent / "pocket"
EMBEDDED = {"pocket": _POCKET / "weights", "pocket-start": _POCKET / "weights-start"}
"""The models that ship with the package, by name, each with its folder: the base, and what Hint-RFT made of it."""

BOXED_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
"""The custom of the field's math evaluations (Qwen2.5-Math, R1)."""

PROMPTING = "start_agent.json"
"""The file in a model's folder that says which instruction the model is used to: ``{"instruction": "..."}``."""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Where a model is, and the instruction that follows each question in its prompts."""

    location: str
    instruction: str


@dataclass(frozen=True, slots=True)
class ModelConfigs:
    """What a model's JSON files say besides its tokenizer and its weights.

    Attributes:
        eos_ids: ids that end a sequence, of ``generation_config.json`` and ``config.json`` together.
        generation: ``generation_config.json``.
        commit: of the hub, from which they come; None of a local folder.
    """

    eos_ids: frozenset[int]
    generation: dict[str, Any]
    commit: str | None


def read_configs(location: str, revision: str | None = None) -> ModelConfigs:
    """The JSON files of a model's folder, or of a model of the hub; a file that is not there says nothing."""
    generation, _ = _read_json(location, "generation_config.json", revision)
    config, commit = _read_json(location, MODEL_CONFIG, revision)
    parts = [generation, config, config.get("text_config")]
    found = [part.get("eos_token_id") for part in parts if isinstance(part, dict)]
    ids = (one for value in found for one in (value if isinstance(value, list) else [value]))
    return ModelConfigs(frozenset(one for one in ids if type(one) is int), generation, commit)


def _read_json(location: str, name: str, revision: str | None) -> tuple[dict[str, Any], str | None]:
    """A JSON object of a model, and the commit of the hub that it comes from."""
    path, commit = Path(location) / name, None
    if is_gguf(location):
        return {}, None  # one file holds all
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
    """A file of a model of the hub, and its commit. Raises ``FileNotFoundError``."""
    from transformers.utils.hub import cached_file, extract_commit_hash

    silent = ("gated_repo", "missing_entries", "connection_errors")
    quiet: dict[str, Any] = {f"_raise_exceptions_for_{what}": False for what in silent}
    found = cached_file(name, file, revision=revision, **quiet)
    if found is None:
        raise FileNotFoundError(file)
    return Path(found), extract_commit_hash(found, None)


def locate(name: str) -> str:
    """Where an engine loads a model from: an embedded or local folder, a GGUF file, or the name on the hub as it is."""
    path = EMBEDDED.get(name) or Path(name).expanduser()
    return str(path) if path.is_dir() or (is_gguf(path) and path.is_file()) else name


def instruction_for(name: str) -> str:
    """The instruction that follows each question to a model, unless the user says another. Raises ``ModelError``."""
    folder = local_folder(name)
    return BOXED_INSTRUCTION if folder is None else _instruction(folder / PROMPTING)


def resolve(name: str, revision: str | None = None) -> ModelChoice:
    """An embedded reasoner (``pocket``, ``pocket-start``), a local folder, or a name of the hub.

    A folder may say in ``start_agent.json`` which instruction its model is used to: ``{"instruction": "..."}``.

    Raises:
        ModelError: a path that does not exist or is no model's folder.
    """
    return ModelChoice(find(name, revision), instruction_for(name))


def find(name: str, revision: str | None = None) -> str:
    """Where an engine loads a model from, as ``locate`` says; a name that only the hub can know is looked up there.

    Raises:
        ModelError: there is no such model here, and the hub does not know it or cannot be asked.
    """
    location = locate(name)
    if name.strip() and Path(location).exists():
        if Path(location).is_file() and not is_gguf(location):
            raise ModelError(f"{name!r} is a file, and no GGUF file: name the model's folder")
        return location
    if name.startswith((".", "/", "~")) or is_gguf(name) or name.count("/") > 1 or not name.strip():
        kind = "file" if is_gguf(name) else "folder"
        raise ModelError(
            f"there is no {kind} {name!r}: name a model of the hub, a local folder or GGUF file, or 'pocket'"
        )
    _look_up(name, revision)
    return name


def local_folder(name: str) -> Path | None:
    """Where the model is on this machine; None of a name that only the hub or a server can know.

    Raises:
        ModelError: a folder that is no model's, or one of adapters without their base.
    """
    path = EMBEDDED.get(name) or Path(name).expanduser()
    if not name.strip() or not path.is_dir():
        return None
    if not (path / MODEL_CONFIG).is_file():
        raise ModelError(f"{name!r} is a folder without a {MODEL_CONFIG}: not a model")
    weights = [*path.glob("*.safetensors"), *path.glob("*.bin")]
    if (path / ADAPTERS).is_file() and all(file.name.startswith("adapter_") for file in weights):
        raise ModelError(f"{name!r} holds adapters alone: merge them into their base first (PEFT's merge_and_unload)")
    return path


def local_digests(*names: str) -> dict[str, str]:
    """By name, the digest of each local model, folder or file: what is trained anew keeps its name, not its digest.

    Raises:
        ModelError: a folder that is no model's, or cannot be read.
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
    """What the file says; the usual one where there is none."""
    try:
        instruction = json.loads(path.read_text(encoding="utf-8"))["instruction"]
    except FileNotFoundError:
        return BOXED_INSTRUCTION
    except (OSError, ValueError, KeyError, TypeError):
        instruction = None
    if not isinstance(instruction, str):
        raise ModelError(f'{path} does not say {{"instruction": "..."}}: mend it, or remove it and use --instruction')
    return instruction


@lru_cache
def _look_up(name: str, revision: str | None) -> None:
    """Refuse a name that the hub does not know, before loading tries and tries again."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        if isinstance(try_to_load_from_cache(name, MODEL_CONFIG, revision=revision), str):
            return
        HfApi().model_info(name, revision=revision, timeout=10)
    except HFValidationError as error:
        raise ModelError(f"{name!r} is neither a folder nor a name of the hub") from error
    except Exception as error:  # whatever the hub's client and the HTTP library under it raise
        raise ModelError(
            f"cannot find the model {name!r} on the hub ({first_line(error)}): "
            "check the name and the network, or name a local folder"
        ) from error
