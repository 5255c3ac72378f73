"""Walk the files of an untrusted tree that git would not ignore, following no link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tools.index.ignore import MAX_BYTES, IgnoreRules, is_ignored

MAX_DEPTH = 64
MAX_ENTRIES = 200_000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
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
    exclude = _read_rules(top, ".git/info/exclude")
    pending: list[tuple[str, Rules]] = [("", (("", exclude),) if exclude else ())]
    with _Descent(top) as descent:
        while pending:
            folder, rules = pending.pop()
            try:
                descriptor = descent.enter(folder)
                with os.scandir(descriptor) as listing:
                    entries = sorted(listing, key=_get_name)
            except OSError:
                continue
            if any(entry.name == ".gitignore" for entry in entries):
                own = _read_rules_at(descriptor, ".gitignore")
                rules = (*rules, (folder, own)) if own else rules
            folders: list[tuple[str, Rules]] = []
            for entry in entries:
                seen += 1
                if seen > MAX_ENTRIES:
                    return
                path = folder + entry.name
                try:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name in skip or folder.count("/") >= MAX_DEPTH:
                            continue
                        if not is_ignored(rules, path, is_folder=True):
                            folders.append((path + "/", rules))
                        continue
                    if not wanted(path) or not entry.is_file(follow_symlinks=False):
                        continue
                    if rules and is_ignored(rules, path, is_folder=False):
                        continue
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                yield WalkedFile(path, status.st_size, take_stamp(status))
            pending += folders[::-1]


def read_rules_above(top: Path, folder: str) -> Rules:
    """Read the rules for what lies in ``folder`` (``""`` or ``a/b/``), without its own.

    A folder that is itself ignored makes no difference: whoever looks into it wants it.
    """
    exclude = _read_rules(top, ".git/info/exclude")
    rules: list[tuple[str, IgnoreRules]] = [("", exclude)] if exclude else []
    names = folder.split("/")[:-1]
    for depth in range(len(names)):
        above = "".join(f"{name}/" for name in names[:depth])
        if own := _read_rules(top, f"{above}.gitignore"):
            rules.append((above, own))
    return tuple(rules)


def read_rules_in(descriptor: int, folder: str) -> Rules:
    """Read the rules of the ``.gitignore`` in an open folder named ``folder``; maybe none."""
    own = _read_rules_at(descriptor, ".gitignore")
    return ((folder, own),) if own else ()


class _Descent:
    """A chain of open folders, from the top to the last one entered."""

    def __init__(self, top: Path) -> None:
        self._open = [os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        self._names: list[str] = []

    def enter(self, folder: str) -> int:
        """Return a descriptor of ``folder`` (``""`` or ``a/b/``), valid until the next call."""
        names = folder.split("/")[:-1]
        shared = 0
        while shared < min(len(names), len(self._names)) and names[shared] == self._names[shared]:
            shared += 1
        while len(self._names) > shared:
            os.close(self._open.pop())
            self._names.pop()
        for name in names[shared:]:
            self._open.append(os.open(name, _FOLDER, dir_fd=self._open[-1]))
            self._names.append(name)
        return self._open[-1]

    def __enter__(self) -> _Descent:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.pop())


def _get_name(entry: os.DirEntry[str]) -> str:
    return entry.name


def take_stamp(status: os.stat_result) -> Stamp:
    """Return what changes whenever a file's content is written or replaced."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def read_file(top: Path, path: str, max_bytes: int) -> bytes:
    """Read the first ``max_bytes`` of a regular file. Raises ``OSError``."""
    folder, separator, name = path.rpartition("/")
    with _Descent(top) as descent:
        return _read_at(descent.enter(folder + separator), name, max_bytes)


def _read_at(folder: int, name: str, max_bytes: int) -> bytes:
    with os.fdopen(os.open(name, _FILE, dir_fd=folder), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        return file.read(max_bytes)


def _read_rules_at(folder: int, name: str) -> IgnoreRules:
    with suppress(OSError):
        return IgnoreRules(_read_at(folder, name, MAX_BYTES))
    return IgnoreRules(b"")


def _read_rules(top: Path, path: str) -> IgnoreRules:
    with suppress(OSError):
        return IgnoreRules(read_file(top, path, MAX_BYTES))
    return IgnoreRules(b"")
