"""Stores responses and conversations in a SQLite database: in memory, or in a file that outlives the server.

Its size is bounded: if it is full, the least recently used entry of the client with the most data is deleted. Only a
digest of a client's key is stored.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, ParamSpec, Self, TypeVar

from start_agent.errors import ConfigError, first_line
from start_agent.server.errors import APIError
from start_agent.server.response_items import JSON

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
"""Version of the database (``user_version``); another one is refused."""

MAX_ENTRIES = 10_000
"""Maximum number of responses and conversations."""

MAX_BYTES = 256 << 20
"""Maximum total size of their JSON."""

MAX_HISTORY_BYTES = 32 << 20
"""Maximum size of the JSON of a conversation or of a chain of responses, which is read again for each response."""

_SCHEMA = (
    "CREATE TABLE entries (id TEXT PRIMARY KEY, owner TEXT NOT NULL, kind TEXT NOT NULL, used INTEGER NOT NULL,"
    " size INTEGER NOT NULL, previous TEXT, body TEXT NOT NULL, items TEXT NOT NULL)",
    "CREATE INDEX by_use ON entries (owner, used, size)",
)

Kind = Literal["response", "conversation"]
Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


class StoreError(APIError):
    """The database cannot be read or written: a full disk, a damaged file."""

    def __init__(self) -> None:
        super().__init__(503, "stored responses cannot be read or written now", code="store_failed")


class NotStored(APIError):  # noqa: N818 - reads better where it is caught
    """The client has no entry with this id: it never existed, was deleted, or was evicted."""

    def __init__(self, kind: Kind, id: str) -> None:
        super().__init__(404, f"there is no {kind} {id[:64]!r}, or it was deleted", code=f"{kind}_not_found")
        self.id = id


class TooLargeError(APIError):
    """An entry, or the chain that a response continues, is larger than ``MAX_HISTORY_BYTES``."""

    def __init__(self) -> None:
        most = f"{MAX_HISTORY_BYTES >> 20} MiB"
        super().__init__(413, f"the conversation is larger than {most}: start another one", code="history_too_large")


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored response or conversation.

    Attributes:
        body: the object as it was sent.
        items: for a response the items of its request; for a conversation all items.
        previous: for a response, the id of the one that it continues.
    """

    body: JSON
    items: list[JSON]
    previous: str | None = None


class Store:
    """The database. It may be used by concurrent tasks, but only by one process.

    Args:
        path: path of the file; None for memory.
        max_entries: maximum number of responses and conversations.
        max_bytes: maximum total size of their JSON.
    """

    def __init__(self, path: Path | None = None, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self._path, self._max_entries, self._max_bytes = path, max_entries, max_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")  # SQLite blocks on the disk
        self._opened: sqlite3.Connection | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        """Open it.

        Raises:
            ConfigError: the file is not a state file, is damaged, or another process is using it.
        """
        await self._in_thread(self._open)
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close it."""
        await self._in_thread(self._close)
        self._closed = True
        self._thread.shutdown(wait=False)

    async def put(self, owner: str, kind: Kind, entry: Entry, *, conversation: str | None = None) -> None:
        """Store or replace a response or a conversation.

        Args:
            owner: the client.
            kind: the kind of entry.
            entry: the entry, stored under ``body["id"]``.
            conversation: the conversation to which a response's items and output are added, in the same transaction.

        Raises:
            NotStored, TooLargeError: the conversation does not exist, or it or the entry is too large; nothing is
                stored.
            StoreError: the database cannot be written.
        """
        await self._in_thread(self._put, _digest(owner), kind, entry, conversation)

    async def get(self, owner: str, kind: Kind, id: str) -> Entry:
        """Read an entry. Raises ``NotStored``, ``StoreError``."""
        return await self._in_thread(self._get, _digest(owner), kind, id)

    async def chain(self, owner: str, id: str) -> list[Entry]:
        """A response and all that it continues, the first one first.

        Raises:
            NotStored: one of them is not stored; ``id`` names it.
            TooLargeError: they are too large together.
            StoreError: the database cannot be read.
        """
        return await self._in_thread(self._chain, _digest(owner), id)

    async def change(self, owner: str, kind: Kind, id: str, change: Callable[[Entry], Entry]) -> Entry:
        """Replace an entry by the result of ``change``, and return it.

        Raises ``NotStored``, ``TooLargeError``, ``StoreError``.
        """
        return await self._in_thread(self._change, _digest(owner), kind, id, change)

    async def delete(self, owner: str, kind: Kind, id: str) -> None:
        """Remove an entry. Raises ``NotStored``, ``StoreError``."""
        await self._in_thread(self._delete, _digest(owner), kind, id)

    async def _in_thread(
        self, function: Callable[Parameters, Returned], *args: Parameters.args, **more: Parameters.kwargs
    ) -> Returned:
        if self._closed:
            raise StoreError
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args, **more))
        except sqlite3.Error as error:
            logger.error("the store failed: %s", first_line(error))
            raise StoreError from error

    def _open(self) -> None:
        try:
            if self._path is not None:
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            database = sqlite3.connect(self._path or ":memory:", timeout=0, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"cannot open the state file {self._path}: {first_line(error)}") from error
        self._opened = database
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")  # a second server with the same file is refused
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            with self._transaction():
                (version,) = database.execute("PRAGMA user_version").fetchone()
                if version not in (0, SCHEMA_VERSION):
                    raise ConfigError(
                        f"{self._path} has version {version}, expected {SCHEMA_VERSION}: use another file"
                    )
                if version == 0:
                    for statement in _SCHEMA:
                        database.execute(statement)
                    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except (ConfigError, sqlite3.Error) as error:
            self._close()
            if isinstance(error, ConfigError):
                raise
            code = getattr(error, "sqlite_errorcode", None)
            reason = "another server is using it" if code == sqlite3.SQLITE_BUSY else first_line(error)
            raise ConfigError(f"{self._path} cannot be used as a state file: {reason}") from error

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @property
    def _database(self) -> sqlite3.Connection:
        if self._opened is None:
            raise StoreError
        return self._opened

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _put(self, owner: str, kind: Kind, entry: Entry, conversation: str | None) -> None:
        with self._transaction():
            if conversation is not None:
                found = self._read(owner, "conversation", conversation)
                added = [*found.items, *entry.items, *entry.body["output"]]
                self._write(owner, "conversation", Entry(found.body, added))
            self._write(owner, kind, entry)
            self._make_room()

    def _get(self, owner: str, kind: Kind, id: str) -> Entry:
        with self._transaction():
            return self._read(owner, kind, id)

    def _chain(self, owner: str, id: str) -> list[Entry]:
        found: list[Entry] = []
        following: str | None = id
        size = 0
        with self._transaction():
            while following is not None:
                found.append(self._read(owner, "response", following))
                size += self._size(following)
                if size > MAX_HISTORY_BYTES:
                    raise TooLargeError
                following = found[-1].previous
        return found[::-1]

    def _change(self, owner: str, kind: Kind, id: str, change: Callable[[Entry], Entry]) -> Entry:
        with self._transaction():
            entry = change(self._read(owner, kind, id))
            self._write(owner, kind, entry)
            self._make_room()
        return entry

    def _delete(self, owner: str, kind: Kind, id: str) -> None:
        with self._transaction():
            self._read(owner, kind, id)
            self._database.execute("DELETE FROM entries WHERE id = ?", (id,))

    def _read(self, owner: str, kind: Kind, id: str) -> Entry:
        """Read an entry and mark it as used."""
        where = (id, owner, kind)
        query = "SELECT body, items, previous FROM entries WHERE id = ? AND owner = ? AND kind = ?"
        row = self._database.execute(query, where).fetchone()
        if row is None:
            raise NotStored(kind, id)
        self._database.execute("UPDATE entries SET used = ? WHERE id = ?", (self._next_use(owner), id))
        return Entry(json.loads(row[0]), json.loads(row[1]), row[2])

    def _write(self, owner: str, kind: Kind, entry: Entry) -> None:
        body, items = _json(entry.body), _json(entry.items)
        size = len(body) + len(items)
        if size > MAX_HISTORY_BYTES:
            raise TooLargeError
        row = (entry.body["id"], owner, kind, self._next_use(owner), size, entry.previous, body, items)
        self._database.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def _size(self, id: str) -> int:
        (size,) = self._database.execute("SELECT size FROM entries WHERE id = ?", (id,)).fetchone()
        return int(size)

    def _next_use(self, owner: str) -> int:
        (last,) = self._database.execute("SELECT max(used) FROM entries WHERE owner = ?", (owner,)).fetchone()
        return (last or 0) + 1

    def _make_room(self) -> None:
        while True:
            entries, size = self._database.execute("SELECT count(*), total(size) FROM entries").fetchone()
            if entries <= self._max_entries and size <= self._max_bytes:
                return
            largest = "SELECT owner FROM entries GROUP BY owner ORDER BY sum(size) DESC LIMIT 1"
            oldest = f"SELECT id FROM entries WHERE owner = ({largest}) ORDER BY used LIMIT 1"
            self._database.execute(f"DELETE FROM entries WHERE id = ({oldest})")


def _digest(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))
