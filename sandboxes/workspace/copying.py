"""Copying the user's files into the private copy, as bytes and without following links."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sandboxes.workspace.host_git import names_git
from sandboxes.workspace.safe_folders import MAX_DEPTH, Folders


def copy_files(
    source: Path,
    target: Path,
    tracked: Sequence[str],
    untracked: Sequence[str],
    max_file_bytes: int,
) -> tuple[list[str], tuple[str, ...]]:
    """Copy files as bytes with their modes and times. Returns those copied and those left out."""
    copied: list[str] = []
    left_out: list[str] = []
    large_ok = set(tracked)
    with Folders(source) as folders:
        for path in sorted({*tracked, *untracked}):
            if path.count("/") > MAX_DEPTH:
                left_out.append(path)
                continue
            found = folders.stat(path)
            if found is None:
                continue
            if names_git(path):
                # In the copy it would be the settings of git on the host.
                left_out.append(path)
                continue
            place = target / path
            if stat.S_ISLNK(found.st_mode):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(folders.readlink(path))
            elif not stat.S_ISREG(found.st_mode):
                continue
            elif found.st_size > max_file_bytes and path not in large_ok:
                left_out.append(path)
                continue
            else:
                try:
                    file = folders.open(path)
                except PermissionError:
                    left_out.append(path)
                    continue
                except FileNotFoundError:  # removed since it was listed
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                with file, place.open("wb") as out:
                    shutil.copyfileobj(file, out, 1 << 20)
                    os.fchmod(out.fileno(), stat.S_IMODE(found.st_mode) & 0o777 | 0o600)
                os.utime(place, ns=(found.st_atime_ns, found.st_mtime_ns))
            copied.append(path)
    return copied, tuple(left_out)


def modes_and_times(top: Path, paths: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return the mode and the time of change, in ns, of each file of ``paths``."""
    found = {}
    with Folders(top) as folders:
        for path in sorted(paths):
            seen = folders.stat(path)
            if seen is not None and stat.S_ISREG(seen.st_mode):
                found[path] = (stat.S_IMODE(seen.st_mode), seen.st_mtime_ns)
    return found


def set_modes_and_times(top: Path, wanted: Mapping[str, tuple[int, int]]) -> None:
    """Give each file that is there its mode and time of change."""
    with Folders(top) as folders:
        for path, (mode, time_ns) in sorted(wanted.items()):
            seen = folders.stat(path)
            if seen is not None and stat.S_ISREG(seen.st_mode):
                with folders.open(path) as file:
                    os.fchmod(file.fileno(), mode)
                    os.utime(file.fileno(), ns=(time_ns, time_ns))
