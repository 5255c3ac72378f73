"""Walk the files of an untrusted tree that git would not ignore, following no link."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandboxes.workspace.safe_folders import Folders
from sandboxes.workspace.safe_walk import walk_folders
from tools.index.ignore import MAX_BYTES, IgnoreRules, is_ignored

MAX_ENTRIES = 200_000
# O_NONBLOCK: what was a file may have become a pipe since it was looked at.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Stamp = tuple[int, int, int, int]
Rules = tuple[tuple[str, IgnoreRules], ...]


@dataclass(frozen=True)
class WalkedFile:
    """A regular file: its path from the root, and a stamp that changes when it does."""

    path: str
    size: int
    stamp: Stamp


def walk(
    top: Path, skip: frozenset[str], wanted: Callable[[str], bool] = lambda path: True
) -> Iterator[WalkedFile]:
    """Yield every regular file below ``top`` that is ``wanted`` and that no ``.gitignore`` covers.

    Folders named in ``skip`` are left out, links are not followed, what cannot be read is passed
    over. Ends after ``MAX_ENTRIES`` entries.
    """
    seen = 0
    with Folders(top) as folders:
        inherited = {"": read_rules_above(folders, "")}
        for here in walk_folders(folders):
            rules = inherited.pop(here.path)
            if any(entry.name == ".gitignore" for entry in here.entries):
                rules += read_rules_in(folders, here.path)
            here.inner[:] = [
                name
                for name in here.inner
                if name not in skip and not is_ignored(rules, here.path + name, is_folder=True)
            ]
            inherited |= {f"{here.path}{name}/": rules for name in here.inner}
            for entry in here.entries:
                seen += 1
                if seen > MAX_ENTRIES:
                    return
                path = here.path + entry.name
                try:
                    if not wanted(path) or not entry.is_file(follow_symlinks=False):
                        continue
                    if rules and is_ignored(rules, path, is_folder=False):
                        continue
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                yield WalkedFile(path, status.st_size, take_stamp(status))


def read_rules_above(folders: Folders, folder: str) -> Rules:
    """Read the rules for what lies in ``folder`` (``""`` or ``a/b/``), without its own.

    A folder that is itself ignored makes no difference: whoever looks into it wants it.
    """
    exclude = _read_rules(folders, ".git/info/exclude")
    rules: list[tuple[str, IgnoreRules]] = [("", exclude)] if exclude else []
    names = folder.split("/")[:-1]
    for depth in range(len(names)):
        above = "".join(f"{name}/" for name in names[:depth])
        if own := _read_rules(folders, f"{above}.gitignore"):
            rules.append((above, own))
    return tuple(rules)


def read_rules_in(folders: Folders, folder: str) -> Rules:
    """Read the rules of the ``.gitignore`` that lies in ``folder``; maybe none."""
    own = _read_rules(folders, f"{folder}.gitignore")
    return ((folder, own),) if own else ()


def take_stamp(status: os.stat_result) -> Stamp:
    """Return what changes whenever a file's content is written or replaced."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def read_file(top: Path, path: str, max_bytes: int) -> bytes:
    """Read the first ``max_bytes`` of a regular file. Raises ``OSError``."""
    with Folders(top) as folders, folders.open(path) as file:
        return file.read(max_bytes)


def _read_rules(folders: Folders, path: str) -> IgnoreRules:
    with suppress(OSError), folders.open(path) as file:
        return IgnoreRules(file.read(MAX_BYTES))
    return IgnoreRules(b"")
