"""Many files of one untrusted folder by exact path, with no symbolic link followed on the way."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

MAX_DEPTH = 200
"""How many folders deep a path may be: each is held open while it is used."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_WRITE_END = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Folders:
    """Keeps the folders on the way to the last path open, so paths in sorted order are cheap."""

    def __init__(self, top: Path) -> None:
        self._fds = [os.open(top, _FOLDER)]
        self._names: list[str] = []
        info = os.fstat(self._fds[0])
        self._owner = (info.st_uid, info.st_gid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def stat(self, path: str, *, or_raise: bool = False) -> os.stat_result | None:
        """Return the metadata of the entry itself, or None if there is none.

        What cannot be looked at counts as none, or raises ``OSError`` if ``or_raise``.
        """
        try:
            folder, name = self._enter(path)
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            if error.errno == errno.EACCES and not or_raise:
                return None
            raise

    def enter(self, folder: str) -> int:
        """Return a descriptor of ``folder`` ("" or "a/b/"), valid until the next call."""
        return self._enter(folder)[0]

    def open(self, path: str) -> IO[bytes]:
        """Open the file for reading. Raises ``OSError``, also if it is no regular file."""
        folder, name = self._enter(path)
        file = os.fdopen(os.open(name, _FILE, dir_fd=folder), "rb")
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise OSError(errno.EINVAL, "not a regular file", path)
        return file

    def readlink(self, path: str) -> str:
        """Return the target of a symbolic link."""
        folder, name = self._enter(path)
        return os.readlink(name, dir_fd=folder)

    def remove(self, path: str) -> None:
        """Remove the file or link if it is there, and the folders this leaves empty."""
        with suppress(FileNotFoundError, NotADirectoryError):
            folder, name = self._enter(path)
            with suppress(IsADirectoryError):
                os.unlink(name, dir_fd=folder)
            while self._names:
                os.close(self._fds.pop())
                try:
                    os.rmdir(self._names[-1], dir_fd=self._fds[-1])
                except OSError:
                    self._names.pop()
                    break
                self._names.pop()

    def unlink(self, path: str) -> None:
        """Remove the file, link or pipe if it is there. Who waits at a pipe gets its end."""
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            folder, name = self._enter(path)
            end = None
            if stat.S_ISFIFO(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                with suppress(OSError):  # nobody waits
                    end = os.open(name, _WRITE_END, dir_fd=folder)
            os.unlink(name, dir_fd=folder)
            if end is not None:
                os.close(end)

    def put(self, path: str, mode: str, content: bytes) -> None:
        """Write ``content`` as a file of git mode ``mode``, in place of whatever is there."""
        folder, name = self._enter(path, make=True)
        temporary = f".tenuto-{secrets.token_hex(8)}"
        try:
            if mode == "120000":
                os.symlink(os.fsdecode(content), temporary, dir_fd=folder)
            else:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
                    os.fchmod(file.fileno(), self._bits(name, folder, mode))
                    file.write(content)
            self._own(temporary, folder)
            try:
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except IsADirectoryError:
                remove_folder(name, folder)
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise

    def chmod(self, path: str, mode: int) -> None:
        """Set the permission bits of a file that is not a link."""
        with self.open(path) as file:
            os.fchmod(file.fileno(), mode)

    def give(self, path: str, uid: int, gid: int) -> None:
        """Give what root owns at ``path``, and the folders on the way, to ``uid``."""
        if (found := self.stat(path)) is None:
            return
        folder, name = self._enter(path)
        if found.st_uid == 0:
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
        for fd in self._fds[1:]:
            if os.fstat(fd).st_uid == 0:
                os.fchown(fd, uid, gid)

    def _bits(self, name: str, folder: int, mode: str) -> int:
        """Return the permission bits for git's ``mode``: those of the present file if they fit."""
        plain = 0o755 if mode == "100755" else 0o644
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        except OSError:
            return plain
        fits = stat.S_ISREG(found) and bool(found & 0o100) == (mode == "100755")
        return stat.S_IMODE(found) & 0o777 if fits else plain

    def _enter(self, path: str, *, make: bool = False) -> tuple[int, str]:
        *parents, name = path.split("/")
        if len(parents) > MAX_DEPTH:
            raise OSError(errno.ENAMETOOLONG, "more folders than can be held open", path)
        shared = 0
        while (
            shared < len(self._names)
            and self._names[shared : shared + 1] == (parents[shared : shared + 1])
        ):
            shared += 1
        while len(self._names) > shared:
            self._names.pop()
            os.close(self._fds.pop())
        for parent in parents[shared:]:
            self._fds.append(self._folder(parent, make=make))
            self._names.append(parent)
        return self._fds[-1], name

    def _folder(self, name: str, *, make: bool) -> int:
        here = self._fds[-1]
        try:
            return os.open(name, _FOLDER, dir_fd=here)
        except (FileNotFoundError, NotADirectoryError):
            if not make:
                raise
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=here)
        os.mkdir(name, 0o755, dir_fd=here)
        self._own(name, here)
        return os.open(name, _FOLDER, dir_fd=here)

    def _own(self, name: str, folder: int) -> None:
        if os.geteuid() == 0:
            os.chown(name, *self._owner, dir_fd=folder, follow_symlinks=False)


def remove_folder(name: str, parent: int) -> None:
    """Remove the folder ``name`` of the open folder ``parent``, however deep it is.

    ``rm`` follows no link and holds few folders open. Raises ``OSError`` if it is still there.
    """
    aside = f".tenuto-{secrets.token_hex(8)}"
    os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=parent)
    command = ["rm", "-rf", "--one-file-system", "--", aside]
    subprocess.run(
        command,
        cwd=f"/proc/self/fd/{parent}",
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    with suppress(FileNotFoundError):
        os.rmdir(aside, dir_fd=parent)
