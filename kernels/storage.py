"""The user's cache folder, and files that are written whole or not at all.

The other tower has the same in ``sandboxes.paths``: docs/decisions says why.
"""

from __future__ import annotations

import os
import threading
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
    with write_named(path.parent, f".{path.name}-") as draft:
        yield draft.file
        draft.keep_as(path.name)


class NewFile:
    """A file that is being written, and the name that it gets once it is whole."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.target: Path | None = None

    def keep_as(self, name: str) -> Path:
        """Choose the name that the file gets in its folder; return its path."""
        self.target = self.file.with_name(name)
        return self.target


@contextmanager
def write_named(folder: Path, prefix: str) -> Iterator[NewFile]:
    """Yield a draft in ``folder``, named by ``prefix``, for a file whose name is known at its end.

    If the block raises or keeps no name, the draft is removed and the folder is as it was. Raises
    ``OSError``.
    """
    draft = NewFile(folder / f"{prefix}{os.getpid()}-{threading.get_ident():x}")
    try:
        yield draft
        if draft.target is not None:
            sync(draft.file)
            draft.file.replace(draft.target)
    finally:
        with suppress(FileNotFoundError):
            draft.file.unlink()
    sync(folder)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
