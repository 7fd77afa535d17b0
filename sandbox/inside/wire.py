"""Jupyter's messages as frames of ZeroMQ: made, signed, checked and read. Used on both sides.

See "Messaging in Jupyter", version 5.4. This is what `jupyter_client.session.Session` does, for a tenth of its time:
a cell takes a millisecond. The tests have one talk with the other.
"""

from __future__ import annotations

import hmac
import json
import os
from datetime import UTC, datetime
from typing import Any

DELIMITER = b"<IDS|MSG>"
VERSION = "5.4"


class GarbageError(Exception):
    """What came in is not a message of Jupyter, or not signed with the key."""


class Wire:
    """Makes and reads the messages of one connection.

    Args:
        key: the secret that signs them.
        name: who speaks, for the headers.
    """

    def __init__(self, key: bytes, name: str) -> None:
        self.key = key
        self._signer = hmac.new(key, digestmod="sha256")
        self._name = name
        self._session = os.urandom(16).hex()
        self._count = 0

    def message(
        self,
        kind: str,
        content: dict[str, Any],
        parent: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> tuple[str, list[bytes]]:
        """A message's id and its frames, from the delimiter on.

        Args:
            kind: its `msg_type`.
            content: its content; strings without lone surrogates.
            parent: the header of the message that it answers.
            metadata: its metadata.
        """
        self._count += 1
        header = {
            "msg_id": f"{self._session}_{self._count}",
            "msg_type": kind,
            "username": self._name,
            "session": self._session,
            "date": datetime.now(UTC).isoformat(),
            "version": VERSION,
        }
        parts = [json.dumps(part).encode() for part in (header, parent or {}, metadata or {}, content)]
        return header["msg_id"], [DELIMITER, self._sign(parts), *parts]

    def read(self, frames: list[bytes]) -> dict[str, Any]:
        """A message with `header`, `parent_header`, `metadata`, `content`, and `identities`.

        Raises GarbageError, whatever is wrong with it; checked are the signature and that these are objects, and
        that `msg_type` is a string.
        """
        try:
            start = frames.index(DELIMITER)
            signature, *parts = frames[start + 1 : start + 6]
            if len(parts) != 4 or not hmac.compare_digest(signature, self._sign(parts)):
                raise GarbageError("a message that is not signed with the key")
            header, parent, metadata, content = (json.loads(part) for part in parts)
            read = {"header": header, "parent_header": parent, "metadata": metadata, "content": content}
            if not all(isinstance(part, dict) for part in read.values()) or not isinstance(header["msg_type"], str):
                raise GarbageError("a message of a strange shape")
            read["identities"] = frames[:start]
        except GarbageError:
            raise
        except Exception as error:  # what a hostile peer can make a decoder raise has no end
            raise GarbageError(f"{type(error).__name__} in reading a message") from error
        return read

    def _sign(self, parts: list[bytes]) -> bytes:
        signer = self._signer.copy()
        for part in parts:
            signer.update(part)
        return signer.hexdigest().encode()
