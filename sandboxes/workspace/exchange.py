"""Single files carried between the private copy and the user's folder, in both directions.

Neither side is trusted with where a path leads: both are walked without following links. What is
decided with these means (who wins, what is told) is the agent's matter.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from sandboxes.errors import WorkspaceError
from sandboxes.workspace.host_git import HostGit, names_git
from sandboxes.workspace.safe_folders import Folders
from sandboxes.workspace.snapshots import SnapshotStore, TreeEntry
from sandboxes.workspace.users_repository import Repository

LINK = "120000"
EXECUTABLE = "100755"
PLAIN = "100644"

Signature = tuple[int, int, int, int, int]
"""Mode, size, mtime, ctime and inode: equal as long as nobody wrote the file."""


@dataclass(frozen=True)
class File:
    """A file, or a link whose target is ``content``. ``mode`` is git's."""

    mode: str
    content: bytes


class Exchange:
    """Made by ``Workspace.exchange``. Paths are relative to the copy's root, with ``/``."""

    def __init__(
        self, git: HostGit, store: SnapshotStore, repository: Repository, copy: Path, scratch: Path
    ) -> None:
        self._git = git
        self._store = store
        self._repository = repository
        self._copy = copy
        self._scratch = scratch
        self.folder = repository.folder

    def listed(self) -> dict[str, Signature]:
        """Return the user's files on disk that are in the repository or not ignored."""
        tracked, untracked = self._repository.list_files(self._git)
        return self.signatures({*tracked, *untracked})

    def signatures(self, paths: set[str]) -> dict[str, Signature]:
        """Return the signatures of those ``paths`` that the user's folder has as files or links."""
        found = {}
        with Folders(self.folder) as folders:
            for path in sorted(paths):
                seen = None if names_git(path) else folders.stat(path)
                if seen is not None and (stat.S_ISREG(seen.st_mode) or stat.S_ISLNK(seen.st_mode)):
                    times = (seen.st_mtime_ns, seen.st_ctime_ns)
                    found[path] = (seen.st_mode, seen.st_size, *times, seen.st_ino)
        return found

    def users(self, path: str) -> File | None:
        """Return the user's file as it is on disk. Raises ``OSError`` if it cannot be read."""
        return _read(self.folder, path)

    def ours(self, path: str) -> File | None:
        """Return the copy's file."""
        return _read(self._copy, path)

    def write_users(self, path: str, file: File | None) -> None:
        """Write, or with None remove, the user's file. An old file's permissions stay.

        Raises ``OSError``, ``WorkspaceError`` for a path inside ``.git``.
        """
        _write(self.folder, path, file)

    def write_ours(self, path: str, file: File | None) -> None:
        """Write, or with None remove, the copy's file, with the rules of ``write_users``."""
        _write(self._copy, path, file)

    def changes(self, base: str, tree: str) -> dict[str, tuple[TreeEntry, TreeEntry]]:
        """Return the entries that differ between the trees, like ``SnapshotStore.changes``."""
        return self._store.changes(base, tree)

    def stored(self, entry: TreeEntry) -> File | None:
        """Return the file that a tree's entry stands for; None if neither file nor link."""
        if entry.mode not in (PLAIN, EXECUTABLE, LINK):
            return None
        return File(entry.mode, self._store.blob(entry.blob))

    def at(self, tree: str, path: str) -> File | None:
        """Return the file at ``path`` in the tree."""
        return self.stored(self._store.entry(tree, path))

    def merged(self, base: bytes, one: bytes, other: bytes) -> bytes | None:
        """Return both changes of ``base`` together; None where they touch the same lines."""
        names = [self._scratch / f"merge-{part}" for part in ("one", "base", "other")]
        for name, content in zip(names, (one, base, other), strict=True):
            name.write_bytes(content)
        try:
            arguments = ["merge-file", "-p", "--quiet", *map(str, names)]
            return self._git.run(arguments, cwd=self._scratch)
        except WorkspaceError:
            return None
        finally:
            for name in names:
                name.unlink(missing_ok=True)


def _read(top: Path, path: str) -> File | None:
    with Folders(top) as folders:
        found = folders.stat(path)
        if found is None:
            return None
        if stat.S_ISLNK(found.st_mode):
            return File(LINK, os.fsencode(folders.readlink(path)))
        if not stat.S_ISREG(found.st_mode):
            return None
        with folders.open(path) as file:
            return File(EXECUTABLE if found.st_mode & 0o100 else PLAIN, file.read())


def _write(top: Path, path: str, file: File | None) -> None:
    if names_git(path):
        raise WorkspaceError(f"{path} is a part of git's own folder and stays as it is")
    with Folders(top) as folders:
        if file is None:
            folders.remove(path)
            return
        before = folders.stat(path)
        folders.put(path, file.mode, file.content)
        if before is not None and stat.S_ISREG(before.st_mode) and file.mode != LINK:
            kept = stat.S_IMODE(before.st_mode) & ~0o111
            runs = (kept & 0o444) >> 2 if file.mode == EXECUTABLE else 0
            folders.chmod(path, kept | runs)
