"""Resolve the path that a model wrote to a place in the workspace, or suggest the nearest."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sandboxes.base import Sandbox
from sandboxes.errors import PathEscape
from sandboxes.workspace.safe_folders import Folders
from sandboxes.workspace.safe_walk import walk_folders
from tools.errors import ToolFailure
from tools.index.ignore import is_ignored
from tools.index.walk import Rules, read_rules_above, read_rules_in

NOISE = frozenset(
    {".git", "__pycache__", "node_modules", ".venv", ".tox", ".mypy_cache", ".pytest_cache"}
    | {".ruff_cache", ".hypothesis"}
)
"""Folders that searches skip unless they are named."""

MAX_PATH = 4_096
_MAX_ENTRIES = 100_000
_SUGGESTIONS = 3


@dataclass(frozen=True)
class Place:
    """A path in the workspace: as the model wrote it, where it leads, and its host path.

    ``shown`` is relative to the workspace root. ``real`` is too, with symbolic links followed, so
    it has no link in it. ``host`` is ``real`` on the host.
    """

    shown: str
    real: str
    host: Path

    @property
    def within(self) -> str:
        """`` in PATH``, or nothing for the workspace itself."""
        return "" if self.real == "." else f" in {self.shown}"


def locate(sandbox: Sandbox, path: str) -> Place:
    """Resolve ``path``. Raises ``ToolFailure`` if it is empty, too long or leaves the workspace."""
    if not path.strip() or "\0" in path:
        raise ToolFailure("The path is empty: give a path relative to the repository root.")
    if len(path) > MAX_PATH:
        raise ToolFailure(f"The path is longer than {MAX_PATH:,} characters: give a real one.")
    try:
        host = sandbox.resolve(path)
        shown = sandbox.relative(path)
    except PathEscape:
        hint = _suggest(sandbox, path)
        raise ToolFailure(
            f"{path} leads out of the repository: only paths inside {sandbox.root} can be used, "
            f"best relative to it.{hint}"
        ) from None
    except OSError as error:
        raise ToolFailure(f"{path} cannot be used: {error.strerror}.") from None
    real = host.relative_to(sandbox.resolve(".")).as_posix()
    return Place(shown or ".", real, host)


def locate_file(sandbox: Sandbox, path: str) -> tuple[Place, os.stat_result]:
    """Resolve the path of an existing regular file. Raises ``ToolFailure``."""
    place = locate(sandbox, path)
    try:
        status = place.host.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise ToolFailure(describe_missing(sandbox, place.shown)) from None
    except OSError as error:
        raise ToolFailure(f"{place.shown} cannot be read: {error.strerror}.") from None
    if stat.S_ISDIR(status.st_mode):
        raise ToolFailure(f"{place.shown} is a directory: use list_directory to see its files.")
    if not stat.S_ISREG(status.st_mode):
        raise ToolFailure(f"{place.shown} is not a regular file (a device, socket or pipe).")
    return place, status


def locate_directory(sandbox: Sandbox, path: str) -> Place:
    """Resolve the path of an existing directory. Raises ``ToolFailure``."""
    place = locate(sandbox, path)
    if place.host.is_dir():
        return place
    if place.host.exists():
        raise ToolFailure(f"{place.shown} is a file, not a directory.")
    raise ToolFailure(describe_missing(sandbox, place.shown, kind="directory"))


def refuse_git(place: Place) -> None:
    """Raise ``ToolFailure`` if writing to ``place`` would change git's own files.

    What lies there (hooks, configuration) could run later, outside the sandbox.
    """
    parts = place.shown.split("/") + place.real.split("/")
    if any(part.rstrip(". ").lower() == ".git" for part in parts):
        raise ToolFailure(
            f"{place.shown} belongs to git itself and is not written by hand: "
            "use git commands in run_shell_command."
        )


def read(sandbox: Sandbox, place: Place, *, max_bytes: int | None = None) -> bytes:
    """Read the bytes of the file at ``place``. Raises ``ToolFailure`` with the reason."""
    try:
        return sandbox.read_bytes(place.real, max_bytes=max_bytes)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ToolFailure(f"{place.shown} cannot be read: {reason}.") from None


def write(sandbox: Sandbox, place: Place, data: bytes, *, executable: bool | None = None) -> None:
    """Write the file at ``place``. Raises ``ToolFailure`` with the reason."""
    try:
        if executable is None:
            sandbox.write_bytes(place.real, data)
        else:
            sandbox.write_bytes(place.real, data, executable=executable)
    except IsADirectoryError:
        raise ToolFailure(f"{place.shown} is a directory: give the path of a file.") from None
    except (NotADirectoryError, FileExistsError):
        raise ToolFailure(
            f"{place.shown} cannot be written: a part of its path is a file, not a directory."
        ) from None
    except OSError as error:
        raise ToolFailure(f"{place.shown} cannot be written: {error.strerror or error}.") from None


def describe_missing(sandbox: Sandbox, shown: str, kind: str = "file") -> str:
    """Say that ``shown`` does not exist, and name the nearest paths that do."""
    return f"There is no {kind} {shown}.{_suggest(sandbox, shown)}"


def _suggest(sandbox: Sandbox, path: str) -> str:
    near = find_nearest_paths(sandbox, path)
    return f" Nearest existing: {', '.join(near)}." if near else ""


def find_nearest_paths(sandbox: Sandbox, path: str) -> list[str]:
    """Find up to three existing files that ``path`` may have meant, the most likely first."""
    wanted = path.strip("/").lower()
    name = _cut_stem(wanted)
    scored: list[tuple[float, str]] = []
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(name)
    for found in walk_files(sandbox, "."):
        other = found.lower()
        matcher.set_seq1(_cut_stem(other))
        if matcher.real_quick_ratio() < 0.6 or matcher.quick_ratio() < 0.6:
            continue
        score = matcher.ratio()
        if score >= 0.6:
            whole = difflib.SequenceMatcher(None, wanted, other, autojunk=False).ratio()
            scored.append((score + whole / 2, found))
    scored.sort(key=lambda item: (-item[0], item[1]))
    return [found for _, found in scored[:_SUGGESTIONS]]


def _cut_stem(path: str) -> str:
    """Return the name without folders and without what follows its last dot."""
    name = path.rsplit("/", 1)[-1]
    return name.rpartition(".")[0] or name


def as_prefix(real: str) -> str:
    """Return what the path of a directory puts before the names in it: "" or "a/b/"."""
    return "" if real in ("", ".") else real + "/"


def walk_files(
    sandbox: Sandbox,
    real: str,
    *,
    skip: frozenset[str] = NOISE,
    ignoring: Callable[[str], bool] | None = None,
) -> Iterator[str]:
    """Walk every file and link below the directory ``real``, in path order.

    Folders named in ``skip`` are left out, links are not followed, and what cannot be read is
    passed over. With ``ignoring`` what git ignores is left out too, if that says so of its name.
    Ends after 100,000 entries.
    """
    prefix = as_prefix(real)
    seen = 0
    with Folders(sandbox.resolve(".")) as folders:
        folders.enter(prefix)  # what cannot be entered raises here; further down it is passed over
        rules: dict[str, Rules] = {prefix: read_rules_above(folders, prefix) if ignoring else ()}
        for here in walk_folders(folders, prefix):
            below, inner = here.path, frozenset(here.inner)
            files = [entry.name for entry in here.entries if entry.name not in inner]
            kept = [name for name in here.inner if name not in skip]
            if ignoring:
                own = rules.pop(below, ())
                if ".gitignore" in files:
                    own += read_rules_in(folders, below)
                kept = [n for n in kept if not _skips(own, below, n, ignoring, folder=True)]
                files = [n for n in files if not _skips(own, below, n, ignoring, folder=False)]
                rules |= {f"{below}{name}/": own for name in kept}
            here.inner[:] = kept
            for name in files:
                yield below + name
                seen += 1
                if seen >= _MAX_ENTRIES:
                    return


def _skips(
    rules: Rules, below: str, name: str, ignoring: Callable[[str], bool], *, folder: bool
) -> bool:
    """Return whether git ignores ``name`` in the folder ``below``, and that counts."""
    return is_ignored(rules, below + name, is_folder=folder) and ignoring(name)


def printable(name: str) -> str:
    """Put a file name on one line: escape control characters, replace undecodable bytes."""
    clean = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if clean.isprintable():
        return clean
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in clean
    )
