"""The index of one tree, refreshed before each question, from the cache where it can be.

It reads files and never runs anything. Parsing happens in other processes (``parsing.py``), and
what they found is kept under the content's hash (``tag_store.py``), so only a content that nobody
parsed before is parsed.
"""

from __future__ import annotations

import itertools
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sandboxes.stop import Stop
from tools.index import walk
from tools.index.languages import Language, detect_language, may_have_language
from tools.index.parsing import ParseFailed, ParseWorkers
from tools.index.queries import query_text
from tools.index.tag_store import TagStore
from tools.index.tags import Definition, Packed, split_names, unpack, unpack_outline
from tools.text.text_file import decode

MAX_FILE_BYTES = 1_000_000
MAX_FILES = 50_000
MAX_TOTAL_BYTES = 1_000_000_000
_HEAD = 16_384
_PUT_EVERY = 200
_MAX_FAILURES = 25

Ids = NDArray[np.int64]
_Names = tuple[Ids, Ids, Ids, NDArray[np.float64]]


@dataclass(frozen=True)
class Indexed:
    """One indexed file: its stamp, its key in the store, and the ids of its names.

    ``local`` are those defined inside functions, which no other file can mean.
    """

    stamp: walk.Stamp
    key: bytes
    defined: Ids
    local: Ids
    mentioned: Ids
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Tables:
    """The whole index in columns. ``files`` are sorted; the arrays hold indices into them.

    ``defined_name[i]`` is defined in ``defined_in[i]``, as is ``local_name[k]`` in a function of
    ``local_in[k]``; ``mentioned_name[j]`` is mentioned in
    ``mentioned_in[j]`` with ``weight[j]``.
    """

    files: tuple[str, ...]
    defined_name: Ids
    defined_in: Ids
    local_name: Ids
    local_in: Ids
    mentioned_name: Ids
    mentioned_in: Ids
    weight: NDArray[np.float64]


@dataclass(frozen=True)
class LeftOut:
    """Source files that are not in the index: too large, unreadable by the grammar, too many."""

    too_large: int = 0
    unparsed: int = 0
    too_many: bool = False
    stopped: bool = False

    def __str__(self) -> str:
        """Describe what was left out; empty if nothing was."""
        parts = []
        if self.too_large:
            parts.append(f"{self.too_large} too large")
        if self.unparsed:
            parts.append(f"{self.unparsed} that could not be parsed")
        if self.too_many:
            parts.append(f"what comes after {MAX_FILES:,} files")
        if self.stopped:
            parts.append("what was not reached before the stop")
        return ", ".join(parts)


class RepositoryIndex:
    """The definitions and mentions below ``top``. Not for several threads at once."""

    def __init__(
        self,
        top: Path,
        store: TagStore,
        workers: ParseWorkers,
        *,
        skip: frozenset[str] = frozenset(),
    ) -> None:
        """Index ``top``, never entering folders named in ``skip``."""
        self._top = top
        self._store = store
        self._workers = workers
        self._skip = skip | {".git"}
        self._files: dict[str, Indexed] = {}
        self._others: dict[str, walk.Stamp] = {}  # looked at, and not in the index
        self._failed: set[str] = set()
        self._too_large: set[str] = set()
        self._ids: defaultdict[str, int] = defaultdict(itertools.count().__next__)
        self._names: list[str] = []
        self._tables: Tables | None = None
        self._outlines: dict[bytes, tuple[Definition, ...]] = {}
        self._checked: set[bytes] = set()
        self.left_out = LeftOut()

    def refresh(self, stop: Stop | None = None) -> Tables:
        """Look at every file's stamp, read those that changed, parse what is not known yet."""
        changed = self._find_changed()
        wanted: dict[str, tuple[walk.Stamp, bytes, Language]] = {}
        for found in changed:
            language = self._read_key(found)
            if language is not None:
                wanted[found.path] = (found.stamp, language[1], language[0])
        known = self._store.known({key for _, key, _ in wanted.values()})
        missing = {key: path for path, (_, key, _) in wanted.items() if key not in known}
        known |= self._parse({path: wanted[path] for path in missing.values()}, stop or Stop())
        loaded = self._load_names(known)
        lost = {path: item for path, item in wanted.items() if known.get(item[1])}
        lost = {path: item for path, item in lost.items() if item[1] not in loaded}
        if lost:  # damaged in the meantime
            known |= self._parse(lost, stop or Stop())
            loaded |= self._load_names({key: True for _, key, _ in lost.values()})
        self._take({path: i for path, i in wanted.items() if i[1] in known}, known, loaded)
        stopped = any(item[1] not in known for item in wanted.values())
        self.left_out = LeftOut(
            len(self._too_large), len(self._failed), self.left_out.too_many, stopped
        )
        return self.tables

    def files_defining(self, name: str) -> list[str]:
        """Return the files that define ``name``, also inside functions, in path order."""
        number = self._ids.get(name)
        tables = self.tables
        found = set(tables.defined_in[tables.defined_name == number])
        found |= set(tables.local_in[tables.local_name == number])
        return [tables.files[file] for file in sorted(found)]

    @property
    def tables(self) -> Tables:
        """The index as of the last ``refresh``."""
        if self._tables is None:
            self._tables = self._build()
        return self._tables

    def name_id(self, name: str) -> int | None:
        """Return the id of ``name`` in the tables, if any file has it."""
        return self._ids.get(name)

    def all_names(self) -> list[str]:
        """Return every name, at the index that is its id."""
        if len(self._names) != len(self._ids):
            self._names = list(self._ids)
        return self._names

    def outline(self, path: str) -> tuple[Definition, ...]:
        """Return the definitions in a file of the index, in source order."""
        entry = self._files.get(path)
        if entry is None:
            return ()
        if entry.key not in self._outlines:
            if len(self._outlines) > 2_000:
                self._outlines.clear()
            packed = self._read_tags(path, entry.key)
            self._outlines[entry.key] = unpack_outline(packed.outline) if packed else ()
        return self._outlines[entry.key]

    def lines_with(self, path: str, name: str) -> list[int]:
        """Return the lines of ``path`` that mention ``name``, without its definitions."""
        entry = self._files.get(path)
        packed = self._read_tags(path, entry.key) if entry is not None else None
        return unpack(packed).lines_of(name) if packed is not None else []

    def _read_tags(self, path: str, key: bytes) -> Packed | None:
        """Return the tags under ``key``, made anew from the file if the store has lost them."""
        if (packed := self._store.get(key)) is not None:
            return packed
        source = self._read_source(path)
        if source is None:
            return None
        language, text = source
        try:
            packed = self._workers.first.tags(language.name, text)
        except ParseFailed:
            return None
        self._store.put([(self._store.key(language, _read_query(language.name), text), packed)])
        return packed

    def text_lines(self, path: str) -> list[str]:
        """Read the file's lines as they are now; none if it cannot be read."""
        try:
            data = walk.read_file(self._top, path, MAX_FILE_BYTES)
        except OSError:
            return []
        return (to_utf8(data) or b"").decode("utf-8", "replace").split("\n")

    def _find_changed(self) -> list[walk.WalkedFile]:
        """Return the files whose stamp is new; those that are gone leave the index."""
        present: set[str] = set()
        changed: list[walk.WalkedFile] = []
        total = 0
        too_many = False
        self._too_large.clear()
        for found in walk.walk(self._top, self._skip, may_have_language):
            if found.size > MAX_FILE_BYTES:
                self._too_large.add(found.path)
                continue
            total += found.size
            if len(present) >= MAX_FILES or total > MAX_TOTAL_BYTES:
                too_many = True
                break
            present.add(found.path)
            entry = self._files.get(found.path)
            if entry is not None and entry.stamp == found.stamp:
                continue
            if self._others.get(found.path) != found.stamp:
                changed.append(found)
        gone = self._files.keys() - present
        for path in gone:
            del self._files[path]
            self._tables = None
        for path in self._others.keys() - present:
            del self._others[path]
        self._failed &= present
        self.left_out = LeftOut(too_many=too_many)
        return changed

    def _read_key(self, found: walk.WalkedFile) -> tuple[Language, bytes] | None:
        source = self._read_source(found.path)
        if source is None:
            self._drop(found)
            return None
        language, text = source
        return language, self._store.key(language, _read_query(language.name), text)

    def _read_source(self, path: str) -> tuple[Language, bytes] | None:
        """Read the language and UTF-8 text of a file that can be indexed."""
        try:
            data = walk.read_file(self._top, path, MAX_FILE_BYTES + 1)
        except OSError:
            return None
        language = detect_language(path, data[:_HEAD])
        if language is None or not language.indexed or len(data) > MAX_FILE_BYTES:
            return None
        text = to_utf8(data)
        return None if text is None else (language, text)

    def _drop(self, found: walk.WalkedFile) -> None:
        self._others[found.path] = found.stamp
        self._failed.discard(found.path)
        if self._files.pop(found.path, None) is not None:
            self._tables = None

    def _parse(
        self, wanted: dict[str, tuple[walk.Stamp, bytes, Language]], stop: Stop
    ) -> dict[bytes, bool]:
        """Parse files and keep their tags. Returns the keys known now, and whether each was parsed.

        A file is read again here; one that changed since is kept under its new content's key and
        found again by its stamp at the next refresh.
        """
        paths = list(wanted)
        read: dict[int, bytes] = {}

        def source(index: int) -> tuple[str, bytes] | None:
            found = self._read_source(paths[index])
            if found is None:
                return None
            read[index] = self._store.key(found[0], _read_query(found[0].name), found[1])
            return found[0].name, found[1]

        known: dict[bytes, bool] = {}
        batch = []
        failures = 0
        enough = stop.joined()
        sources = [lambda index=index: source(index) for index in range(len(paths))]
        for index, packed in self._workers.tags_of(sources, enough):
            key = read.pop(index)
            batch.append((key, packed))
            known[key] = packed is not None
            failures += packed is None
            if failures >= _MAX_FAILURES:
                # Each may have taken the whole time of a file: a tree of them must end.
                enough.cancel()
            if len(batch) >= _PUT_EVERY:
                self._store.put(batch)
                batch = []
        self._store.put(batch)
        return known

    def _load_names(self, known: Mapping[bytes, bool]) -> dict[bytes, _Names]:
        """Return the names of the keys that are known and could be parsed."""
        loaded: dict[bytes, _Names] = {}
        for key, defined, names, weights in self._store.names(k for k, ok in known.items() if ok):
            loaded[key] = self._load(defined, names, weights)
        return loaded

    def _take(
        self,
        wanted: dict[str, tuple[walk.Stamp, bytes, Language]],
        known: Mapping[bytes, bool],
        loaded: Mapping[bytes, _Names],
    ) -> None:
        """Put files whose tags are known into the index."""
        if not wanted:
            return
        self._tables = None
        keys = {key for _, key, _ in wanted.values()}
        for path, (stamp, key, _) in wanted.items():
            if known[key] and key in loaded:
                self._files[path] = Indexed(stamp, key, *loaded[key])
                self._failed.discard(path)
                self._others.pop(path, None)
            else:
                self._files.pop(path, None)
                self._others[path] = stamp
                self._failed.add(path)
        new = keys - self._checked
        self._checked |= new
        self._store.touch(new)

    def _load(self, defined: bytes, names: bytes, weights: bytes) -> _Names:
        numbers = array("I")
        numbers.frombytes(weights)
        mentioned = self._make_ids(split_names(names))
        outer, _, local = defined.partition(b"\n\n")
        return (
            np.unique(self._make_ids(split_names(outer.strip(b"\n")))),
            np.unique(self._make_ids(split_names(local))),
            mentioned,
            np.asarray(numbers, dtype=np.float64),
        )

    def _make_ids(self, names: Iterable[str]) -> Ids:
        ids = self._ids
        return np.array([ids[name] for name in names], dtype=np.int64)

    def _build(self) -> Tables:
        files = tuple(sorted(self._files))
        entries = [self._files[path] for path in files]
        defined = [entry.defined for entry in entries]
        local = [entry.local for entry in entries]
        mentioned = [entry.mentioned for entry in entries]
        return Tables(
            files,
            _join(defined),
            _number_parts(defined),
            _join(local),
            _number_parts(local),
            _join(mentioned),
            _number_parts(mentioned),
            np.concatenate([entry.weights for entry in entries]) if entries else np.zeros(0),
        )


def _join(parts: list[Ids]) -> Ids:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _number_parts(parts: list[Ids]) -> Ids:
    """Return for each element of the joined parts the number of its part."""
    return np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def to_utf8(data: bytes) -> bytes | None:
    """Return a text file's bytes as UTF-8 without a byte-order mark; None if it is binary."""
    if data.isascii() and b"\0" not in data:
        return data
    file = decode(data)
    return None if file is None else file.text.encode("utf-8", "replace")


@cache
def _read_query(language: str) -> str:
    return query_text(language)
