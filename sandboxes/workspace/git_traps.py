"""Files that would keep git waiting or fill its memory, found before git reads them.

Git opens its own files and every ``.gitignore`` as they are. A pipe in their place is never read to
its end, and a sparse file takes as much memory as it claims to be long.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from sandboxes.errors import WorkspaceError
from sandboxes.workspace.safe_folders import MAX_DEPTH, Folders
from sandboxes.workspace.safe_walk import walk_folders

SMALL_BYTES = 10 * 1024**2
LARGE_BYTES = 1024**3
_LARGE = ("index", "packed-refs")
_READ = (
    *("HEAD", "config", "config.worktree", "index", "packed-refs", "commondir", "shallow"),
    *("info/exclude", "info/attributes", "info/grafts", "info/sparse-checkout"),
    *("objects/info/alternates", "FETCH_HEAD", "ORIG_HEAD", "MERGE_HEAD", "gitdir"),
)
_SECTION = re.compile(r"^\s*\[([^\]]*)", re.MULTILINE)
_INCLUDE = re.compile(r"^\s*path\s*=\s*\"?([^\"\n#;]+)", re.MULTILINE | re.IGNORECASE)
_NAMED = re.compile(
    r"^\s*(?:excludes|attributes)file\s*=\s*\"?([^\"\n#;]+)", re.MULTILINE | re.IGNORECASE
)
_MAX_INCLUDES = 20


def find_git(folder: Path) -> tuple[Path, Path] | None:
    """Return the working tree that ``folder`` lies in and its git folder, or None.

    A ``.git`` that is a link or names another folder counts only where that folder names this one:
    else it would hand over another repository's history. Raises ``WorkspaceError``.
    """
    for top in (folder, *folder.parents):
        place = top / ".git"
        try:
            mode = place.lstat().st_mode
        except OSError:
            continue
        if stat.S_ISDIR(mode):
            if (place / "HEAD").is_symlink() or os.path.lexists(place / "HEAD"):
                return top, place
            continue
        if not stat.S_ISREG(mode):
            what = "a link" if stat.S_ISLNK(mode) else "no folder"
            raise WorkspaceError(f"{place} is {what}; give a repository with a .git of its own")
        return top, _follow_file(top, place)
    return None


def refuse_traps(git_dir: Path) -> None:
    """Raise ``WorkspaceError`` if a file that git reads in ``git_dir`` is none, or is too large."""
    for folder in {git_dir, _common(git_dir)}:
        for name in _READ:
            _refuse(folder / name, LARGE_BYTES if name in _LARGE else SMALL_BYTES)
        _refuse_in_refs(folder / "refs")
        for name in ("objects/info", "objects/pack"):
            _refuse_waiting(folder / name)
        waiting = [folder / "config", folder / "config.worktree"]
        for _ in range(_MAX_INCLUDES):
            if not waiting:
                break
            config = waiting.pop()
            _refuse(config, SMALL_BYTES)
            with suppress(OSError, RuntimeError):
                waiting += _included(config)
                for named in _NAMED.findall(config.read_text(errors="replace")):
                    _refuse(Path(named.strip()).expanduser(), SMALL_BYTES)


def refuse_rule_traps(top: Path) -> None:
    """Raise ``WorkspaceError`` if a file of ignore rules in ``top``, or a nested git's, is none."""
    with Folders(top.resolve()) as folders:
        suspects = _suspects(folders)
    for path in suspects:
        with suppress(OSError):
            if not stat.S_ISLNK((top / path).lstat().st_mode):
                _refuse(top / path, SMALL_BYTES)


def remove_traps(top: Path) -> None:
    """Remove what would keep git waiting or fill its memory in the untrusted folder ``top``."""
    with Folders(top) as folders:
        for path in _suspects(folders):
            found = folders.stat(path)
            if found is None or stat.S_ISLNK(found.st_mode) or stat.S_ISDIR(found.st_mode):
                continue
            if not stat.S_ISREG(found.st_mode) or found.st_size > SMALL_BYTES:
                folders.unlink(path)


def _suspects(folders: Folders) -> list[str]:
    """Return every ``.gitignore`` and what git reads in the git folders inside."""
    found = []
    for here in walk_folders(folders, max_depth=MAX_DEPTH):
        inside = "/.git/" in f"/{here.path}"
        files = {entry.name for entry in here.entries}.difference(here.inner)
        # Git is told to use another folder than the ``.git`` at the top.
        passed = "objects" if here.path else ".git"
        here.inner[:] = [name for name in here.inner if name != passed]
        for name in files:
            if name in (".gitignore", ".git") or (inside and name != "index"):
                found.append(here.path + name)
    return found


def _follow_file(top: Path, place: Path) -> Path:
    """Return the git folder that the file ``place`` names, if that belongs to ``top``."""
    _refuse(place, SMALL_BYTES)
    text = place.read_text(errors="replace")
    named = Path(text.removeprefix("gitdir:").strip())
    git_dir = (named if named.is_absolute() else top / named).resolve()
    _refuse(git_dir / "gitdir", SMALL_BYTES)
    _refuse(git_dir / "config", SMALL_BYTES)
    with suppress(OSError):  # a work tree
        if Path((git_dir / "gitdir").read_text(errors="replace").strip()).resolve() == place:
            return git_dir
    with suppress(OSError):  # a submodule
        config = (git_dir / "config").read_text(errors="replace")
        found = re.search(r"^\s*worktree\s*=\s*(.+)$", config, re.MULTILINE)
        if found and (git_dir / found[1].strip()).resolve() == top:
            return git_dir
    raise WorkspaceError(
        f"{place} names {git_dir}, which is another repository's; give that one, or a clone"
    )


def _included(config: Path) -> list[Path]:
    """Return the files that the ``include`` sections of ``config`` name."""
    sections = _SECTION.split(config.read_text(errors="replace"))
    named = [
        name
        for title, body in zip(sections[1::2], sections[2::2], strict=False)
        if title.strip().lower().startswith("include")
        for name in _INCLUDE.findall(body)
    ]
    return [config.parent / Path(name.strip()).expanduser() for name in named]


def _common(git_dir: Path) -> Path:
    """Return the folder that a work tree shares with its repository; else ``git_dir``."""
    place = git_dir / "commondir"
    _refuse(place, SMALL_BYTES)
    try:
        return (git_dir / place.read_text(errors="replace").strip()).resolve()
    except OSError:
        return git_dir


def _refuse_in_refs(folder: Path) -> None:
    for here, _, names in os.walk(folder):
        for name in names:
            _refuse(Path(here, name), SMALL_BYTES)


def _refuse_waiting(folder: Path) -> None:
    """Raise ``WorkspaceError`` if anything below ``folder`` is a pipe or a device."""
    for here, _, names in os.walk(folder):
        for name in names:
            _refuse(Path(here, name), 1 << 60)


def _refuse(path: Path, limit: int) -> None:
    """Raise ``WorkspaceError`` if ``path`` is there and no plain file, or over ``limit`` bytes."""
    try:
        found = path.stat()
    except OSError:
        return
    if stat.S_ISDIR(found.st_mode):
        return
    if not stat.S_ISREG(found.st_mode):
        raise WorkspaceError(f"{path} is no plain file, and git would wait for it; remove it")
    if found.st_size > limit:
        raise WorkspaceError(
            f"{path} is {found.st_size >> 20} MB, too much for git to read; remove it"
        )
