"""The record of a session's files, looked at when no copy is open."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandboxes.errors import WorkspaceError
from sandboxes.workspace.host_git import HostGit
from sandboxes.workspace.kept_tree import after_a_kill
from sandboxes.workspace.patching import apply_patch
from sandboxes.workspace.snapshots import SnapshotStore


class KeptRecord:
    """The git directory ``place`` that ``Workspace.keep_record`` left; use ``open_record``."""

    def __init__(self, place: Path, scratch: Path) -> None:
        self._place = place
        self._scratch = scratch
        self._git = HostGit(scratch / "git-home")
        self._store = SnapshotStore(self._git, place, scratch / "tree", prefix="", max_file_bytes=0)

    def is_whole(self, tree: str) -> bool:
        """Tell whether ``tree`` is there with everything in it."""
        try:
            listed = os.fsdecode(self._run(["ls-tree", "-r", "-z", tree])).split("\0")
            blobs = sorted({line.split("\t", 1)[0].split(" ")[2] for line in listed if line})
            names = "".join(f"{blob}\n" for blob in blobs)
            found = self._run(["cat-file", "--batch-check"], stdin=names.encode()).decode()
        except WorkspaceError:
            return False
        return sum(" blob " in line for line in found.splitlines()) == len(blobs)

    def patch(self, base: str, tree: str) -> str:
        """Return the git patch from ``base`` to ``tree``. Raises ``WorkspaceError``."""
        return self._store.diff(base, tree)

    def apply(self, repo: Path, patch: str) -> None:
        """Apply ``patch`` to the files of ``repo``, or nothing. Raises ``WorkspaceError``."""
        apply_patch(self._git, self._scratch / "apply.git", repo, patch)

    def _run(self, arguments: list[str], stdin: bytes = b"") -> bytes:
        return self._git.run(arguments, cwd=self._place, git_dir=self._place, stdin=stdin)


@contextmanager
def open_record(place: Path) -> Iterator[KeptRecord]:
    """Yield the record at ``place``. Raises ``WorkspaceError`` if there is none."""
    after_a_kill(place)
    with tempfile.TemporaryDirectory(prefix="tenuto-") as scratch:
        yield KeptRecord(place, Path(scratch))
