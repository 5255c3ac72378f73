"""Prompts' beginnings, kept on disk with the model's state, so that later sessions start from them.

The system prompt, the tool schemas and what is said of the repository are the same for every task
in it. A first prompt is run up to certain places (``cuts``) one after the other, whether anything
is stored or not; the state at each is kept, and a later prompt that begins with the same ids starts
from the longest one. As both ran in the same pieces, what follows is bit for bit the same.

``$XDG_CACHE_HOME/tenuto/prefixes/KEY/`` holds one state (``model.session.Session.save``). KEY is a
hash of the ids, of the cuts up to there, the weights' fingerprint, the form of keys and values, and
the version. An entry appears whole or not at all, by a rename; one that is damaged is removed and
made again. The folder's time is that of its last use: the oldest go first once all together are
over the limit.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent import version
from model.engine import Engine
from model.errors import ModelError, StateError
from model.session import Session
from model.usage import Usage
from sandboxes import paths

MIN_TOKENS = 256
"""A shorter beginning is faster to run than to write and read back."""

_UNBORN = ".new-"
_UNBORN_KEPT_S = 3600.0


def cache_dir() -> Path:
    """Return the folder of the prefix cache. It may not exist."""
    return paths.cache_dir() / "prefixes"


@dataclass(frozen=True)
class CachedPrefix:
    """One stored beginning: where, how large in bytes, and when it was last used (seconds)."""

    path: Path
    size: int
    used: float


class PrefixCache:
    """The stored beginnings for one engine. Several processes may use the folder at once."""

    def __init__(self, engine: Engine, limit_mb: int, root: Path | None = None) -> None:
        """Bound the folder by ``limit_mb``; 0 stores nothing and finds nothing."""
        self._engine = engine
        self._limit = limit_mb * 2**20
        self.root = root if root is not None else cache_dir()

    def start(self, ids: Sequence[int], cuts: Sequence[int], *, seed: int) -> Session:
        """Return a session that holds the longest stored beginning of ``ids``, else an empty one.

        It draws from ``seed`` as a new one would. What it holds counts as shared, not prefilled.
        """
        for number in reversed(range(len(cuts))):
            found = self._load(self._place(ids, cuts[: number + 1]))
            if found is None:
                continue
            if found.ids == tuple(ids[: cuts[number]]):
                session = found.fork(seed=seed)
                session.carry(Usage(shared_tokens=session.length) - found.usage)
                found.close()
                return session
            found.close()
        return self._engine.session(seed=seed)

    def has(self, ids: Sequence[int], cuts: Sequence[int]) -> bool | None:
        """Tell whether the state at the last of ``cuts`` is stored; None if nothing ever is."""
        return self._place(ids, cuts).is_dir() if self._limit else None

    def keep(self, session: Session, cuts: Sequence[int]) -> None:
        """Store ``session``, which has just reached the last of ``cuts``. Never raises."""
        place = self._place(session.ids, cuts)
        if not self._limit or place.exists():
            return
        unborn = self.root / f"{_UNBORN}{os.getpid()}-{secrets.token_hex(4)}"
        try:
            paths.private_dir(self.root)
            unborn.mkdir(mode=0o700)
            session.save(unborn)
            if _size(unborn) <= self._limit:
                with suppress(OSError):  # another process was faster
                    unborn.rename(place)
            self._evict()
        except (OSError, ModelError):
            pass  # a full disk costs the next session the time, not this one its run
        finally:
            shutil.rmtree(unborn, ignore_errors=True)

    def entries(self) -> list[CachedPrefix]:
        """Return the stored beginnings, the least recently used first."""
        found = []
        with suppress(OSError):
            for path in self.root.iterdir():
                with suppress(OSError):
                    if not path.name.startswith("."):
                        found.append(CachedPrefix(path, _size(path), path.stat().st_mtime))
        return sorted(found, key=lambda entry: entry.used)

    def _load(self, place: Path) -> Session | None:
        if not self._limit or not place.is_dir():
            return None
        with suppress(OSError):
            os.utime(place)
        try:
            return self._engine.resume(place)
        except StateError:
            # Damaged, or another process removes it at this moment.
            self._remove(place)
        except ModelError:
            pass  # no memory for it: the run will say so
        return None

    def _place(self, ids: Sequence[int], cuts: Sequence[int]) -> Path:
        """Return the folder of the state at the last of ``cuts``."""
        parts = [self._engine.state_form, version(), list(cuts), list(ids[: cuts[-1]])]
        return self.root / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]

    def _evict(self) -> None:
        """Remove the least recently used entries over the limit, and what killed writers left."""
        with _locked(self.root / ".lock"):
            entries = self.entries()
            total = sum(entry.size for entry in entries)
            for entry in entries:
                if total <= self._limit:
                    break
                self._remove(entry.path)
                total -= entry.size
            for path in self.root.glob(_UNBORN + "*"):
                with suppress(OSError):
                    if time.time() - path.stat().st_mtime > _UNBORN_KEPT_S:
                        shutil.rmtree(path, ignore_errors=True)

    def _remove(self, place: Path) -> None:
        """Rename, then remove, so that nobody finds half an entry."""
        doomed = self.root / f"{_UNBORN}{os.getpid()}-{secrets.token_hex(4)}"
        with suppress(OSError):
            place.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _size(folder: Path) -> int:
    """Return the bytes of the files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
