"""Names of models: the ones that ship with the package, and everybody else's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from start_agent.digests import MODEL_CONFIG, model_digest
from start_agent.errors import MissingExtraError, ModelError
from start_agent.pocket import EMBEDDED, weights_path
from start_agent.prompts import BOXED_INSTRUCTION, PROMPTING
from start_agent.tokenizer import first_line


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Where a model is, and the instruction that follows each question in its prompts."""

    location: str
    instruction: str


def resolve(name: str) -> ModelChoice:
    """An embedded reasoner (``pocket``, ``pocket-start``), a local folder, or a name of the hub.

    A folder may say in ``start_agent.json`` which instruction its model is used to: ``{"instruction": "..."}``.

    Raises:
        ModelError: a path that does not exist or is no model's folder.
    """
    path = local_folder(name)
    if path is not None:
        return ModelChoice(str(path), _instruction(path / PROMPTING))
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name.strip():
        raise ModelError(f"there is no folder {name!r}: name a model of the hub, a local folder, or 'pocket'")
    _look_up(name)
    return ModelChoice(name, BOXED_INSTRUCTION)


def local_folder(name: str) -> Path | None:
    """Where the model is on this machine; None of a name that only the hub or a server can know.

    Raises:
        ModelError: a folder that is no model's.
    """
    path = weights_path(name) if name in EMBEDDED else Path(name).expanduser()
    if not path.is_dir():
        return None
    if not (path / MODEL_CONFIG).is_file():
        raise ModelError(f"{name!r} is a folder without a {MODEL_CONFIG}: not a model")
    return path


def local_digests(*names: str) -> dict[str, str]:
    """By name, the digest of each model that is a local folder: what is trained anew keeps its name, not its digest.

    Raises:
        ModelError: a folder that is no model's, or cannot be read.
    """
    found: dict[str, str] = {}
    for name in names:
        folder = local_folder(name)
        if folder is not None:
            try:
                found[name] = model_digest(folder)
            except OSError as error:
                raise ModelError(f"cannot read the model {folder}: {error.strerror}") from error
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


def _look_up(name: str) -> None:
    """Refuse a name that the hub does not know, before loading tries and tries again."""
    try:
        from huggingface_hub import HfApi, try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "transformers") from error
    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return
        HfApi().model_info(name, timeout=10)
    except HFValidationError as error:
        raise ModelError(f"{name!r} is neither a folder nor a name of the hub") from error
    except Exception as error:  # whatever the hub's client and the HTTP library under it raise
        raise ModelError(
            f"cannot find the model {name!r} on the hub ({first_line(error)}): "
            "check the name and the network, or name a local folder"
        ) from error
