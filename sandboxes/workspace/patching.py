"""Applying a patch to the user's files: all of it or nothing."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from sandboxes.errors import WorkspaceError
from sandboxes.workspace.host_git import HostGit, from_os_error
from sandboxes.workspace.safe_folders import Folders
from sandboxes.workspace.users_repository import find_repository


@dataclass(frozen=True)
class _Saved:
    """A file or link before the patch."""

    path: str
    mode: int
    content: bytes


def apply_patch(git: HostGit, scratch: Path, repo: Path, patch: str) -> None:
    """Apply a patch made by ``Workspace.diff`` to the files of ``repo``, or change nothing.

    ``scratch`` becomes a git directory for this, so that files are changed as plain bytes and
    nothing in the repository's own settings has a say. What is to change is kept aside until all
    is written. Run by root, new files get the owner of the repository.

    Raises ``WorkspaceError``.
    """
    if not patch:
        return
    top = find_repository(repo).top
    content = patch.encode("utf-8", "surrogateescape")

    def apply(*options: str) -> bytes:
        arguments = ["apply", "--whitespace=nowarn", *options, "-"]
        return git.run(arguments, cwd=top, git_dir=scratch, work_tree=top, stdin=content)

    try:
        if not scratch.exists():
            git.new_store(scratch)
        apply("--check")
        touched = _names(apply("--numstat", "-z")) | _names(apply("--numstat", "-z", "--reverse"))
        saved = _save(top, touched)
    except WorkspaceError as error:
        raise _refused(top, error) from error
    except OSError as error:
        raise from_os_error(error, f"applying the patch to {top}") from error
    try:
        apply()
        _give_to_owner(top, touched)
    except BaseException as error:
        _put_back(top, touched, saved)
        if isinstance(error, WorkspaceError):
            raise _refused(top, error) from error
        if isinstance(error, OSError):
            raise from_os_error(error, f"applying the patch to {top}") from error
        raise


def _refused(top: Path, error: WorkspaceError) -> WorkspaceError:
    if "disk space" in str(error):
        return WorkspaceError(f"no disk space left to apply the patch to {top}; free some")
    return WorkspaceError(
        f"the patch does not apply to {top}, which changed since the run began: {error}"
    )


def _names(numstat: bytes) -> set[str]:
    """Return the paths in ``git apply --numstat -z``: after the change, or before if reversed."""
    lines = os.fsdecode(numstat).split("\0")
    return {line.split("\t", 2)[2] for line in lines if line.count("\t") >= 2}


def _save(top: Path, paths: set[str]) -> list[_Saved]:
    saved = []
    with Folders(top) as folders:
        for path in sorted(paths):
            found = folders.stat(path)
            if found is None:
                continue
            if stat.S_ISLNK(found.st_mode):
                saved.append(_Saved(path, found.st_mode, os.fsencode(folders.readlink(path))))
            elif stat.S_ISREG(found.st_mode):
                with folders.open(path) as file:
                    saved.append(_Saved(path, found.st_mode, file.read()))
    return saved


def _put_back(top: Path, paths: set[str], saved: list[_Saved]) -> None:
    """Put back what can be, new files first: their space may be what is missing."""
    try:
        with Folders(top) as folders:
            for path in sorted(paths - {item.path for item in saved}):
                folders.remove(path)
            for item in saved:
                found = folders.stat(item.path)
                if found is not None and found.st_mode == item.mode and _holds(folders, item):
                    continue
                folders.put(item.path, f"{item.mode:o}", item.content)
                if not stat.S_ISLNK(item.mode):
                    folders.chmod(item.path, stat.S_IMODE(item.mode))
    except OSError as error:
        raise from_os_error(error, f"taking back half of a patch in {top}") from error


def _holds(folders: Folders, item: _Saved) -> bool:
    if stat.S_ISLNK(item.mode):
        return os.fsencode(folders.readlink(item.path)) == item.content
    with folders.open(item.path) as file:
        return file.read() == item.content


def _give_to_owner(top: Path, paths: set[str]) -> None:
    owner = top.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    with Folders(top) as folders:
        for path in sorted(paths):
            folders.give(path, owner.st_uid, owner.st_gid)
