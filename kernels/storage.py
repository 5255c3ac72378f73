"""The user's cache folder, and files that are written whole or not at all.

The other tower has the same in ``sandboxes.paths``: docs/decisions says why.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from platformdirs import user_cache_path


def cache_dir() -> Path:
    """Return ``$XDG_CACHE_HOME/tenuto``, or the one under ``~/.cache``. It may not exist."""
    return user_cache_path("tenuto", appauthor=False)


def make_private(folder: Path) -> None:
    """Make a folder and its missing parents, mode 0700 whatever the umask is."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(exist_ok=True)
        place.chmod(0o700)
    folder.mkdir(exist_ok=True)  # raises if it is a file


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Yield a draft beside ``path`` to write; it becomes ``path`` once it is on disk.

    If the block raises, the draft is removed and ``path`` is as it was. Raises ``OSError``.
    """
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        yield draft
        sync(draft)
        draft.replace(path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
