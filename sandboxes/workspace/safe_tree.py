"""Host-side access to a folder whose content is not trusted.

A process in the sandbox may swap a file for a symbolic link at any moment. So nothing here hands
the kernel more than one path component at a time: each is looked up in the already opened folder
before it, without following links; links are read and walked the same way, and must stay inside.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sandboxes.errors import PathEscape

_MAX_LINKS = 40
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class ResolvedPath:
    """The place that a path leads to: an open folder and a name in it.

    ``name`` is empty if the path is the root itself. ``parts`` are the components from the root
    with every link resolved. ``missing`` are folders that do not exist between ``folder`` and the
    name (then the file cannot exist either).
    """

    folder: int
    name: str
    parts: tuple[str, ...]
    missing: tuple[str, ...] = ()


class SafeTree:
    """Files under ``top``. ``root`` is what that folder is called inside the sandbox.

    ``owner`` (uid, gid) is given to what is written; None leaves it to the system.
    """

    def __init__(self, top: Path, *, root: str, owner: tuple[int, int] | None = None) -> None:
        self.top = top
        self.root = root.rstrip("/") or "/"
        self.owner = owner

    def read_bytes(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """Return the file's content (its first ``max_bytes``).

        Raises ``FileNotFoundError``, ``IsADirectoryError``, ``PathEscape``, and ``OSError`` for a
        pipe, socket or device, which could block for ever.
        """
        with self._resolved(path) as place:
            _refuse_special(place, path)
            # O_NONBLOCK: the file may have become a pipe since it was looked at.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(_open(place, flags, path), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise _not_regular(path)
                return file.read(-1 if max_bytes is None else max_bytes)

    def write_bytes(self, path: str, data: bytes, *, executable: bool | None = None) -> None:
        """Write the whole file or nothing; keeps an existing file's mode, makes missing folders.

        ``executable`` sets or clears the permission to run it; None leaves it.
        """
        with self._resolved(path) as place:
            mode = 0o644
            if not place.missing and (found := _lstat(place)) is not None:
                _refuse_special(place, path)
                mode = stat.S_IMODE(found.st_mode)
            if executable is not None:
                # Who may read it may run it.
                mode = mode | (mode & 0o444) >> 2 if executable else mode & ~0o111
            with self._made(place) as folder:
                self._replace(folder, place.name, data, mode)

    def remove(self, path: str) -> None:
        """Remove the file. Raises ``FileNotFoundError``, ``IsADirectoryError``, ``PathEscape``."""
        with self._resolved(path) as place:
            _refuse_special(place, path)
            os.unlink(place.name, dir_fd=place.folder)

    def resolve(self, path: str) -> Path:
        """Return the host path of ``path`` with all links resolved. The file need not exist."""
        with self._resolved(path) as place:
            return self.top.joinpath(*place.parts)

    def relative(self, path: str) -> str:
        """Return ``path`` from the root with ``/``; ``.`` for the root itself."""
        parts = self._parts(path)
        with self._resolved(path) as place:
            kept = place.parts if ".." in parts else tuple(p for p in parts if p not in ("", "."))
        return "/".join(kept) or "."

    def _parts(self, path: str) -> list[str]:
        try:
            os.fsencode(path)
        except UnicodeEncodeError:
            raise PathEscape(f"{path!r} is not a path; use plain text") from None
        if "\0" in path:
            raise PathEscape(f"{path!r} is not a path: it holds a NUL character")
        if path.startswith("/"):
            inside = self._below_root(path)
            if inside is None:
                raise PathEscape(f"{path} is outside the workspace {self.root}; use a path inside")
            return inside.split("/")
        return path.split("/")

    def _below_root(self, path: str) -> str | None:
        if path == self.root:
            return ""
        prefix = self.root if self.root == "/" else self.root + "/"
        return path[len(prefix) :] if path.startswith(prefix) else None

    @contextmanager
    def _resolved(self, path: str) -> Iterator[ResolvedPath]:
        """Walk to ``path``. Every folder opened on the way is closed at the end."""
        walk = _Walk(os.open(self.top, _FOLDER))
        try:
            pending = self._parts(path)[::-1]
            links = 0
            while pending:
                target = walk.step(pending.pop(), last=not any(pending), path=path)
                if target is None:
                    continue
                links += 1
                if links > _MAX_LINKS:
                    raise PathEscape(f"{path} goes through too many symbolic links")
                if target.startswith("/"):
                    inside = self._below_root(target)
                    if inside is None:
                        raise PathEscape(f"{path} leads out of the workspace to {target}")
                    walk.rewind()
                    target = inside
                pending += target.split("/")[::-1]
            yield walk.place()
        finally:
            walk.close()

    @contextmanager
    def _made(self, place: ResolvedPath) -> Iterator[int]:
        """Yield the folder of ``place``, with its missing folders made."""
        folder = os.dup(place.folder)
        try:
            for name in place.missing:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=folder)
                    if self.owner:
                        os.chown(name, *self.owner, dir_fd=folder, follow_symlinks=False)
                inner = os.open(name, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    def _replace(self, folder: int, name: str, data: bytes, mode: int) -> None:
        if not name:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.root)
        temporary = f".tenuto-{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
                if self.owner:
                    os.fchown(file.fileno(), *self.owner)
                os.fchmod(file.fileno(), mode)
                file.write(data)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise


class _Walk:
    """Open folders from the top down to where the walk stands."""

    def __init__(self, top: int) -> None:
        self._folders = [top]
        self._names: list[str] = []
        self._rest: list[str] = []

    def step(self, name: str, *, last: bool, path: str) -> str | None:
        """Go one component on. Returns a link's target, which the caller walks in its place."""
        if name in ("", "."):
            return None
        if name == "..":
            if self._rest:
                self._rest.pop()
            elif len(self._folders) == 1:
                raise PathEscape(f"{path} leads out of the workspace; use a path inside it")
            else:
                os.close(self._folders.pop())
                self._names.pop()
            return None
        if self._rest:
            self._rest.append(name)
            return None
        here = self._folders[-1]
        try:
            found = os.stat(name, dir_fd=here, follow_symlinks=False)
        except FileNotFoundError:
            self._rest.append(name)
            return None
        if stat.S_ISLNK(found.st_mode):
            return os.readlink(name, dir_fd=here)
        if stat.S_ISDIR(found.st_mode):
            self._folders.append(os.open(name, _FOLDER, dir_fd=here))
            self._names.append(name)
            return None
        if not last:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        self._rest.append(name)
        return None

    def rewind(self) -> None:
        while len(self._folders) > 1:
            os.close(self._folders.pop())
        self._names.clear()

    def place(self) -> ResolvedPath:
        parts = (*self._names, *self._rest)
        if self._rest:
            return ResolvedPath(self._folders[-1], self._rest[-1], parts, tuple(self._rest[:-1]))
        if self._names:  # the path is a folder: give it as a name in its parent
            return ResolvedPath(self._folders[-2], self._names[-1], parts)
        return ResolvedPath(self._folders[-1], "", parts)

    def close(self) -> None:
        while self._folders:
            os.close(self._folders.pop())


def remove_tree(path: Path) -> bool:
    """Remove a folder of untrusted content, however deep and whatever its modes. True if gone.

    ``rm`` never follows links and, unlike ``shutil.rmtree``, has no limit on depth.
    """
    for _ in range(2):
        if not os.path.lexists(path):
            return True
        command = ["rm", "-rf", "--one-file-system", "--", str(path)]
        subprocess.run(command, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False)
        if not os.path.lexists(path):
            return True
        for folder, names, _files, fd in os.fwalk(path, follow_symlinks=False):
            del folder
            for name in names:
                with suppress(OSError):
                    os.chmod(name, 0o700, dir_fd=fd)
    shutil.rmtree(path, ignore_errors=True)
    return not os.path.lexists(path)


def _lstat(place: ResolvedPath) -> os.stat_result | None:
    if not place.name:
        return os.fstat(place.folder)
    try:
        return os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _refuse_special(place: ResolvedPath, path: str) -> None:
    found = None if place.missing else _lstat(place)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(found.st_mode):
        raise _not_regular(path)


def _open(place: ResolvedPath, flags: int, path: str) -> int:
    try:
        return os.open(place.name, flags, dir_fd=place.folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise PathEscape(f"{path} became a symbolic link while it was opened") from error
        raise


def _not_regular(path: str) -> OSError:
    return OSError(errno.EINVAL, "not a regular file (a pipe, socket or device)", path)
