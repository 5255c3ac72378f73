"""Caches, kept on disk only to be faster: how large they are, and how they are removed.

All of them lie under ``$XDG_CACHE_HOME/tenuto`` and are made again when they are missing. They may
be removed while other processes use them: what those have open stays with them.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.sessions import prefix_cache as warm
from model.checkpoint import quantize
from tools.index import tag_store as tags


@dataclass(frozen=True)
class Cache:
    """One kind: its name, its files and folders, what it is, and its size in bytes."""

    name: str
    paths: tuple[Path, ...]
    what: str

    @property
    def size(self) -> int:
        """Bytes on disk, as far as they can be read."""
        return sum(map(_size, self.paths))


def caches() -> list[Cache]:
    """Return all kinds, whether or not there is anything of them."""
    database = tags.cache_path()
    # The log before the database that it belongs to, so that none is left for another one.
    database_files = tuple(Path(f"{database}{end}") for end in ("-wal", "-shm", ""))
    # Those of other versions, which nobody reads any more.
    older = database.parent.glob("tags-*.sqlite*")
    database_files += tuple(path for path in sorted(older) if path not in database_files)
    return [
        Cache("prefixes", (warm.cache_dir(),), "the model's state after prompts' beginnings"),
        Cache("quantized", (quantize.cache_dir(),), "checkpoints rounded to int8 or int4"),
        Cache("tags", database_files, "definitions and references in source files"),
    ]


def clear(kinds: Sequence[Cache]) -> tuple[int, list[tuple[Path, OSError]]]:
    """Remove ``kinds``. Returns how many bytes that were, and what stays and why."""
    freed = 0
    failed: list[tuple[Path, OSError]] = []
    for kind in kinds:
        for path in kind.paths:
            size = _size(path)
            try:
                _remove(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                failed.append((path, error))
            freed += size - _size(path)
    return freed, failed


def _remove(path: Path) -> None:
    """Rename, then remove, so that nobody finds a half of it."""
    doomed = path.with_name(f".new-{path.name}-{secrets.token_hex(4)}")
    path.rename(doomed)
    if doomed.is_dir() and not doomed.is_symlink():
        shutil.rmtree(doomed)
    else:
        doomed.unlink()


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    total = 0
    for file in files:
        with suppress(OSError):
            total += file.lstat().st_size if not file.is_dir() else 0
    return total
