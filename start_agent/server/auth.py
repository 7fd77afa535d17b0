"""API keys: each key of the server identifies a client."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from start_agent.errors import ConfigError
from start_agent.server.errors import APIError

VARIABLE = "START_AGENT_API_KEY"
"""The environment variable that holds a key."""

_MIN_CHARS = 8


class Keys:
    """The keys of a server. Only their hashes are kept.

    Args:
        keys: the keys in plain text; none for a server without authentication.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = sorted({_digest(key) for key in keys})

    def __bool__(self) -> bool:
        return bool(self._digests)

    def client(self, authorization: str) -> str:
        """The client of a request by its ``Authorization`` header: a hash of its key; "" if the server has no keys.

        Compares in constant time.

        Raises:
            APIError: 401.
        """
        if not self._digests:
            return ""
        scheme, _, key = authorization.partition(" ")
        given = _digest(key.strip())
        found = [hmac.compare_digest(given, known) for known in self._digests]
        if scheme.lower() != "bearer" or not any(found):
            message = "no valid API key was given" if authorization else "an API key is needed: Authorization: Bearer"
            raise APIError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return given.hex()[:32]


def read_keys(path: Path | None, environment: Mapping[str, str] = os.environ) -> Keys:
    """Read keys from a file, one per line, and from the environment. Empty lines and lines with ``#`` are skipped.

    Raises:
        ConfigError: the file cannot be read or has no key, or a key is too short or contains white space.
    """
    given = environment.get(VARIABLE, "").strip()
    keys = [_checked(given, VARIABLE)] if given else []
    if path is not None:
        try:
            lines = path.expanduser().read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ConfigError(f"--api-key-file: cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"--api-key-file: {path} is not UTF-8 text") from error
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise ConfigError(f"--api-key-file: {path} has no key: write one per line")
        keys += [_checked(key, f"--api-key-file: {path}") for key in found]
    return Keys(keys)


def _checked(key: str, source: str) -> str:
    """The key, if it is long enough and may stand in a header. Raises ConfigError, which names only the source."""
    if len(key) < _MIN_CHARS or key.split() != [key] or not key.isascii():
        raise ConfigError(f"{source}: an API key needs at least {_MIN_CHARS} ASCII characters without white space")
    return key


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", errors="surrogateescape")).digest()
