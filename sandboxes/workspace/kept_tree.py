"""Laying out a tree that a session kept, and comparing the user's folder with one.

Both use a git directory of their own that borrows the session's objects, so the record itself has
no index and no attributes of the repository are heard.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from sandboxes.errors import WorkspaceError
from sandboxes.workspace.host_git import HostGit
from sandboxes.workspace.safe_folders import Folders

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


@dataclass(frozen=True)
class Origin:
    """The start of a kept session: its record, the tree of its baseline, and the user's HEAD."""

    record: Path
    baseline: str
    head: str


class KeptTree:
    """One tree of the record ``objects``, below ``prefix`` ("" or "sub/").

    ``scratch`` is the place of a bare git directory; it may be there from before. Raises
    ``WorkspaceError`` where git cannot read the tree.
    """

    def __init__(
        self, git: HostGit, objects: Path, scratch: Path, tree: str, *, prefix: str
    ) -> None:
        self._git = git
        self._dir = scratch if scratch.exists() else git.new_store(scratch)
        (scratch / "objects" / "info" / "alternates").write_text(f"{objects / 'objects'}\n")
        self._tree = tree
        if prefix and tree != EMPTY_TREE:
            self._tree = f"{tree}:{prefix.rstrip('/')}" if self._has(tree, prefix) else EMPTY_TREE

    def names(self) -> list[str]:
        """Return the paths in the tree, without the prefix."""
        if self._tree == EMPTY_TREE:
            return []
        listed = self._run(["ls-tree", "-r", "-z", "--name-only", self._tree])
        return [name for name in os.fsdecode(listed).split("\0") if name]

    def lay_out(self, folder: Path) -> None:
        """Write every file into ``folder``, which must be ours and without any of them."""
        if self._tree != EMPTY_TREE:
            self._run(["read-tree", self._tree])
            self._run(["checkout-index", "--all", "--force"], work_tree=folder)

    def changed_in(self, folder: Path) -> list[str]:
        """Return the tree's files that ``folder`` lacks, or has with other content or mode."""
        changed = []
        kept = self._entries()
        with Folders(folder) as folders:
            same: list[tuple[str, str]] = []
            for path, (mode, blob) in sorted(kept.items()):
                found = folders.stat(path)
                if found is None:
                    changed.append(path)
                elif stat.S_ISLNK(found.st_mode):
                    target = self._run(["cat-file", "blob", blob]) if mode == "120000" else b""
                    if os.fsencode(folders.readlink(path)) != target:
                        changed.append(path)
                elif not stat.S_ISREG(found.st_mode) or mode != _git_mode(found):
                    changed.append(path)
                else:
                    same.append((path, blob))
        # One path a line: a name with a newline in it is taken as unchanged.
        plain = [(path, blob) for path, blob in same if "\n" not in path]
        lines = "".join(f"{path}\n" for path, _ in plain)
        hashed = self._run(
            ["hash-object", "--no-filters", "--stdin-paths"],
            cwd=folder,
            stdin=os.fsencode(lines),
        )
        ids = hashed.decode().split()
        changed += [p for (p, blob), now in zip(plain, ids, strict=True) if blob != now]
        return sorted(changed)

    def _entries(self) -> dict[str, tuple[str, str]]:
        """Return mode and blob of every path."""
        if self._tree == EMPTY_TREE:
            return {}
        listed = os.fsdecode(self._run(["ls-tree", "-r", "-z", self._tree])).split("\0")
        entries = {}
        for line in filter(None, listed):
            head, path = line.split("\t", 1)
            mode, _, blob = head.split(" ")
            entries[path] = (mode, blob)
        return entries

    def _has(self, tree: str, prefix: str) -> bool:
        return bool(self._run(["ls-tree", tree, prefix.rstrip("/")]))

    def _run(
        self,
        arguments: list[str],
        *,
        work_tree: Path | None = None,
        cwd: Path | None = None,
        stdin: bytes = b"",
    ) -> bytes:
        return self._git.run(
            arguments,
            cwd=cwd or work_tree or self._dir,
            git_dir=self._dir,
            work_tree=work_tree,
            stdin=stdin,
        )


def after_a_kill(record: Path) -> None:
    """Clear what a git that was killed left in ``record``: a lock, a half-written pack.

    Raises ``WorkspaceError`` if there is no record.
    """
    if not (record / "objects").is_dir():
        raise WorkspaceError(f"the session's files are not there: {record} is no git directory")
    for path in (*record.glob("refs/heads/*.lock"), *record.glob("objects/**/tmp_*")):
        path.unlink(missing_ok=True)


def _git_mode(found: os.stat_result) -> str:
    return "100755" if found.st_mode & 0o100 else "100644"
