"""Walk the folders of an untrusted tree by open descriptors, so that no link leads out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from sandboxes.workspace.safe_folders import MAX_DEPTH, Folders


@dataclass(frozen=True)
class WalkedFolder:
    """A folder on the way: its path ("" or "a/b/"), its descriptor, and what is in it by name.

    ``inner`` names the folders that the walk enters next, in order; a caller may take names out.
    The descriptor and the entries are valid until the walk goes on.
    """

    path: str
    descriptor: int
    entries: list[os.DirEntry[str]]
    inner: list[str]


def walk_folders(
    folders: Folders, start: str = "", *, max_depth: int = 64
) -> Iterator[WalkedFolder]:
    """Yield the folder ``start`` ("" or "a/b/") of ``folders`` and all folders below it.

    A folder comes before those inside it, which follow in the order of their names. Links are not
    entered; what cannot be read, or lies more than ``max_depth`` folders below the top, is passed
    over. The caller must not enter other paths of ``folders`` meanwhile.
    """
    waiting = [start]
    while waiting:
        path = waiting.pop()
        try:
            descriptor = folders.enter(path)
            with os.scandir(descriptor) as listing:
                entries = sorted(listing, key=attrgetter("name"))
            inner = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        yield WalkedFolder(path, descriptor, entries, inner)
        if path.count("/") < min(max_depth, MAX_DEPTH):
            waiting += [f"{path}{name}/" for name in reversed(inner)]


def mend_modes(top: Path) -> None:
    """Make every folder and file below ``top`` that is ours readable for us, but for git's own.

    What commands made unreadable would else be taken for deleted.
    """
    if not os.access(top, os.R_OK | os.W_OK | os.X_OK):
        top.chmod(stat.S_IMODE(top.lstat().st_mode) | 0o700)
    with Folders(top) as folders:
        for here in walk_folders(folders, max_depth=MAX_DEPTH):
            if not here.path and ".git" in here.inner:
                here.inner.remove(".git")
            for entry in here.entries:
                if here.path or entry.name != ".git":
                    with suppress(OSError):
                        _mend(entry, here.descriptor)


def _mend(entry: os.DirEntry[str], parent: int) -> None:
    found = entry.stat(follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        needed = 0o700
    elif stat.S_ISREG(found.st_mode):
        needed = 0o400
    else:
        return
    if found.st_mode & needed == needed or found.st_uid != os.geteuid():
        return
    # Opened as a mere place and without following links: it may have been swapped for one.
    place = os.open(entry.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        seen = os.fstat(place).st_mode
        if not stat.S_ISLNK(seen):
            Path(f"/proc/self/fd/{place}").chmod(stat.S_IMODE(seen) | needed)
    finally:
        os.close(place)
