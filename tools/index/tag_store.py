"""The store of all tags made on this machine, each under the hash of its file's content.

One SQLite file in the user's cache, which any number of processes may use at once. What is in it
depends on nothing but the content, the grammar and the query, so it is never out of date and
serves every copy of a repository. Each row has a checksum, so a damaged or unusable cache costs
time, never an answer.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sandboxes.paths import cache_dir, private_dir
from tools.index.languages import Language
from tools.index.tags import Packed

FORMAT = 2
MAX_BYTES = 1_000_000_000
_KEEP_DAYS = 60
_BATCH = 500
_COLUMNS = "outline, defined, names, weights, counts, lines"
_EMPTY = Packed(b"[]", b"", b"", b"", b"", b"")
_DAMAGED = Packed(b"damaged", b"", b"", b"", b"", b"")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tags (
    key BLOB PRIMARY KEY, day INTEGER NOT NULL, outline BLOB NOT NULL, defined BLOB NOT NULL,
    names BLOB NOT NULL, weights BLOB NOT NULL, counts BLOB NOT NULL, lines BLOB NOT NULL,
    failed INTEGER NOT NULL DEFAULT 0, checksum BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_day ON tags (day);
"""


def cache_path() -> Path:
    """Return ``$XDG_CACHE_HOME/tenuto/tags-N.sqlite``, N being the form of its records."""
    return cache_dir() / f"tags-{FORMAT}.sqlite"


class TagStore:
    """A store of packed tags by key. Not for several threads at once; each takes its own."""

    def __init__(self, path: Path | None = None) -> None:
        """Open or make the file ``path``; None or an unusable place keeps all in memory."""
        self._path = path
        self._connection = _connect(path)
        self._prefixes: dict[str, bytes] = {}

    def key(self, language: Language, query: str, content: bytes) -> bytes:
        """Return the key of ``content`` read with this grammar and this query."""
        if language.name not in self._prefixes:
            words = f"{FORMAT}\0{language.name}\0{_find_version(language.module)}\0{query}"
            self._prefixes[language.name] = hashlib.blake2b(words.encode()).digest()
        return hashlib.blake2b(self._prefixes[language.name] + content, digest_size=20).digest()

    def known(self, keys: Iterable[bytes]) -> dict[bytes, bool]:
        """Return which of ``keys`` are here, and whether they could be parsed."""
        return {key: tags is not None for key, tags in self._read(keys)}

    def names(self, keys: Iterable[bytes]) -> Iterator[Sequence[bytes]]:
        """Yield each key that is here, with the names defined and mentioned and their weights."""
        for key, tags in self._read(keys):
            if tags is not None:
                yield key, tags.defined, tags.names, tags.weights

    def get(self, key: bytes) -> Packed | None:
        """Return the tags under ``key``."""
        return next((tags for _, tags in self._read([key])), None)

    def outline(self, key: bytes) -> bytes | None:
        """Return the packed definitions under ``key``."""
        tags = self.get(key)
        return tags.outline if tags is not None else None

    def put(self, items: Sequence[tuple[bytes, Packed | None]]) -> None:
        """Keep ``items``; None says that a content cannot be parsed, so nobody tries again."""
        today = _count_days()
        rows = [
            (key, today, *vars(tags or _EMPTY).values(), tags is None, _sum_up(key, tags))
            for key, tags in items
        ]
        statement = (
            f"INSERT OR REPLACE INTO tags (key, day, {_COLUMNS}, failed, checksum)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        try:
            with self._connection:
                self._connection.executemany(statement, rows)
        except sqlite3.Error:
            # No room, or the file is damaged: go on without it.
            self.close()
            self._connection = _connect(None)
            with self._connection:
                self._connection.executemany(statement, rows)

    def touch(self, keys: Iterable[bytes]) -> None:
        """Note that ``keys`` were used today, and forget what nobody used for long."""
        today = _count_days()
        with suppress(sqlite3.Error), self._connection:
            for part in _split_batches(list(keys)):
                marks = ",".join("?" * len(part))
                self._connection.execute(
                    f"UPDATE tags SET day = ? WHERE day < ? AND key IN ({marks})",
                    (today, today, *part),
                )
            self._connection.execute("DELETE FROM tags WHERE day < ?", (today - _KEEP_DAYS,))
            self._shrink()

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._connection.close()

    def _shrink(self) -> None:
        """Drop the days longest ago while the file is over ``MAX_BYTES``."""
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        (size,) = self._connection.execute("PRAGMA page_size").fetchone()
        if (pages - free) * size > MAX_BYTES:
            self._connection.execute("DELETE FROM tags WHERE day = (SELECT min(day) FROM tags)")

    def _read(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, Packed | None]]:
        """Yield the rows of ``keys`` whose checksum holds; the others are as if not there."""
        for part in _split_batches(list(keys)):
            wanted = set(part)
            for row in self._select(part):
                tags = _check(row)
                if tags is not _DAMAGED and row[0] in wanted:
                    yield row[0], tags

    def _select(self, keys: Sequence[bytes]) -> list[tuple[Any, ...]]:
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, failed, checksum, {_COLUMNS} FROM tags WHERE key IN ({marks})"
        try:
            return self._connection.execute(query, keys).fetchall()
        except sqlite3.OperationalError:
            return []
        except sqlite3.DatabaseError:
            self._make_anew()
            return []

    def _make_anew(self) -> None:
        """Begin an empty file: this one is damaged, and what was in it can be parsed again."""
        self.close()
        if self._path is not None:
            _remove(self._path)
        self._connection = _connect(self._path)


def _sum_up(key: bytes, tags: Packed | None) -> bytes:
    """Return the checksum of a row; the lengths tell where one part ends and the next begins."""
    digest = hashlib.blake2b(key, digest_size=16)
    for part in vars(tags or _EMPTY).values():
        digest.update(len(part).to_bytes(8, "little") + part)
    digest.update(b"failed" if tags is None else b"parsed")
    return digest.digest()


def _check(row: Sequence[Any]) -> Packed | None:
    """Return the tags of a row, None if it says that they cannot be made, or ``_DAMAGED``."""
    key, failed, checksum, *parts = row
    if not all(isinstance(part, bytes) for part in (key, *parts)) or failed not in (0, 1):
        return _DAMAGED
    tags = Packed(*parts)
    if checksum != _sum_up(key, None if failed else tags):
        return _DAMAGED
    return None if failed else tags


def _connect(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        for attempt in range(2):
            try:
                return _open(path)
            except sqlite3.OperationalError:
                break  # no place to write, or no such file system
            except sqlite3.DatabaseError:
                if attempt == 0:
                    _remove(path)
            except OSError:
                break
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.executescript(_SCHEMA)
    return connection


def _open(path: Path) -> sqlite3.Connection:
    private_dir(path.parent)
    connection = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the last records, which are then made again.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
        connection.execute(
            f"SELECT key, day, failed, checksum, {_COLUMNS} FROM tags LIMIT 1"
        ).fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _remove(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        with suppress(OSError):
            path.with_name(path.name + end).unlink()


def _split_batches(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(keys), _BATCH):
        yield keys[start : start + _BATCH]


def _count_days() -> int:
    return int(time.time() // 86_400)


def _find_version(module: str) -> str:
    try:
        return version(module.replace("_", "-"))
    except PackageNotFoundError:
        return ""
