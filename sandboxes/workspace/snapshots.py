"""Snapshots of a folder that is not trusted, kept in a git directory the sandbox cannot reach.

The folder is read component by component without following links (as in ``files.py``) and fed to
``git fast-import`` as bytes, so no filter, submodule or nested repository in it is ever asked
anything. Git is only asked which files are ignored, which reads but runs nothing.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from sandboxes.errors import WorkspaceError
from sandboxes.workspace.git_traps import remove_traps
from sandboxes.workspace.host_git import HostGit, failure, from_os_error, names_git
from sandboxes.workspace.safe_folders import MAX_DEPTH, Folders, remove_folder
from sandboxes.workspace.safe_walk import mend_modes, walk_folders

_CHUNK = 1 << 20
_REF = "refs/heads/work"
_PASSES = 3
MAX_NEW_FILES = 20_000
MAX_RECORD_BYTES = 1024**3
LISTING_BYTES = 2 * 1024**3
# A file changed less than this before it was read may change again under the same timestamp.
_SETTLED_NS = 1_000_000_000


@dataclass(frozen=True)
class _Seen:
    """A file's metadata when its content was stored."""

    mode: int
    size: int
    mtime: int
    ctime: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> _Seen:
        return cls(found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


@dataclass(frozen=True)
class TreeEntry:
    """A file in a tree: its git mode and its blob; both "" where there is none."""

    mode: str
    blob: str

    @classmethod
    def of(cls, mode: str, blob: str) -> TreeEntry:
        """Make one from the columns of ``git diff-tree --raw``, where zeros stand for nothing."""
        return cls("", "") if set(mode) == {"0"} else cls(mode, blob)


@dataclass(frozen=True)
class _Change:
    mode: str
    blob: str
    path: str


class SnapshotStore:
    """Trees of the folder ``top``.

    ``prefix`` ("" or "sub/") goes before every path in the trees. Files that are not ``known`` and
    larger than ``max_file_bytes`` are not stored, nor those whose path git refuses (``.GIT/x``);
    ``left_out`` names those of the last snapshot. More than ``MAX_NEW_FILES`` files that are not
    known, and what would take the record over ``MAX_RECORD_BYTES``, stay out or as they were, too.
    """

    def __init__(
        self, git: HostGit, git_dir: Path, top: Path, *, prefix: str, max_file_bytes: int
    ) -> None:
        self._git = git
        self._git_dir = git_dir
        self._top = top
        self._prefix = prefix
        self._max_file_bytes = max_file_bytes
        self._stored: dict[str, _Seen | None] = {}
        self._commit = ""
        self._tree = ""
        self._kept: frozenset[str] = frozenset()
        self._released: frozenset[str] = frozenset()
        self._sent = 0
        self.left_out: tuple[str, ...] = ()

    def move_to(self, git_dir: Path) -> None:
        """Keep the record at ``git_dir`` from now on, where nothing may be yet."""
        shutil.move(self._git_dir, git_dir)
        self._git_dir = git_dir

    def first(self, known: Iterable[str]) -> str:
        """Make the first snapshot: the files ``known``, ignored or not. Returns its tree id."""
        self._kept = frozenset(known)
        return self._store(self._kept)

    def snapshot(self) -> str:
        """Store the folder as it is. Returns the tree id.

        Files are those that no ignore rule covers, and those stored before.
        """
        if os.geteuid() != 0:
            mend_modes(self._top)
        released, self._released = self._released, frozenset()
        return self._store((self._listed() | self._stored.keys()) - released)

    def forgive_owner_change(self) -> None:
        """Take new ctimes (after a chown by us) as no change of content."""
        with Folders(self._top) as folders:
            for path, seen in self._stored.items():
                found = folders.stat(path)
                if seen is not None and found is not None:
                    now = _Seen.of(found)
                    same = (now.mode, now.size, now.mtime, now.inode)
                    if same == (seen.mode, seen.size, seen.mtime, seen.inode):
                        self._stored[path] = now

    @property
    def place(self) -> Path:
        """The git directory that holds the trees."""
        return self._git_dir

    def diff(self, base: str, tree: str) -> str:
        """Return a git patch from ``base`` to ``tree``; all paths and text in it are valid UTF-8.

        A changed file that is not UTF-8 is given as a binary patch, which keeps its bytes.
        """
        patch = self._patch(base, tree)
        try:
            return patch.decode()
        except UnicodeDecodeError:
            return self._utf8_patch(base, tree)

    def restore(self, tree: str) -> None:
        """Make the folder hold exactly ``tree``, ignored and left-out files aside."""
        # More than one pass: with the tree's own .gitignore back, other files may come into view.
        for _ in range(_PASSES):
            now = self.snapshot()
            if now == tree:
                return
            self._write_changes(now, tree)
        if self.snapshot() != tree:
            raise WorkspaceError("rolling back failed: a process in the sandbox keeps writing")

    def remove_others(self) -> None:
        """Remove what the last snapshot has not, ``.git`` at the top aside."""
        kept = set(self._stored)
        folders = {""} | {str(parent) for path in kept for parent in PurePosixPath(path).parents}
        folders.discard(".")
        with Folders(self._top) as opened:
            for here in walk_folders(opened, max_depth=MAX_DEPTH):
                inner = set(here.inner)
                here.inner[:] = [name for name in here.inner if here.path + name in folders]
                for name in inner.difference(here.inner):
                    if here.path + name != ".git":
                        remove_folder(name, here.descriptor)
                for entry in here.entries:
                    if entry.name not in inner and here.path + entry.name not in kept:
                        os.unlink(entry.name, dir_fd=here.descriptor)

    def has_tree(self, tree: str) -> bool:
        """Tell whether ``tree`` is the id of a stored tree."""
        try:
            kind = self._run(["cat-file", "-t", tree])
        except WorkspaceError:
            return False
        return kind.strip() == b"tree"

    def changes(self, base: str, tree: str) -> dict[str, tuple[TreeEntry, TreeEntry]]:
        """Return what differs between ``base`` and ``tree``, by path: the entries in both."""
        raw = self._run(["diff-tree", "-r", "-z", "--raw", "--no-renames", base, tree])
        fields = os.fsdecode(raw).split("\0")
        found = {}
        for header, path in zip(fields[0:-1:2], fields[1::2], strict=False):
            old_mode, new_mode, old, new, _ = header.lstrip(":").split(" ")
            inner = path.removeprefix(self._prefix)
            found[inner] = (TreeEntry.of(old_mode, old), TreeEntry.of(new_mode, new))
        return found

    def entry(self, tree: str, path: str) -> TreeEntry:
        """Return what ``tree`` has at ``path``."""
        listed = os.fsdecode(self._run(["ls-tree", "-z", tree, self._prefix + path]))
        if not listed:
            return TreeEntry("", "")
        mode, kind, blob = listed.split("\t", 1)[0].split(" ")
        return TreeEntry(mode, blob) if kind == "blob" else TreeEntry("", "")

    def blob(self, name: str) -> bytes:
        """Return the content of a stored file."""
        return self._run(["cat-file", "blob", name])

    def _run(self, arguments: list[str], *, git_dir: Path | None = None) -> bytes:
        return self._git.run(arguments, cwd=self._git_dir, git_dir=git_dir or self._git_dir)

    def _all_binary(self) -> Path:
        """Return a git directory with the same objects, in which every file counts as binary."""
        twin = self._top.with_name("binary.git")
        if not twin.exists():
            self._git.new_store(twin, binary=True)
        objects = self._git_dir / "objects"
        (twin / "objects" / "info" / "alternates").write_text(f"{objects}\n")
        return twin

    def _listed(self) -> set[str]:
        return set(self._others(self._top, "", depth=0))

    def _others(self, folder: Path, prefix: str, *, depth: int) -> Iterator[str]:
        try:
            listed = self._ask_git(folder)
        except WorkspaceError:
            remove_traps(self._top)
            listed = self._ask_git(folder)
        for name in os.fsdecode(listed).split("\0"):
            if name.endswith("/"):  # a repository inside: git does not look into it, we do
                if depth < 8 and not (folder / name).is_symlink():
                    yield from self._others(folder / name, prefix + name, depth=depth + 1)
            elif name:
                yield prefix + name

    def _ask_git(self, folder: Path) -> bytes:
        """Return the files that no rule covers.

        Git reads each ``.gitignore`` whole, whatever it is.
        """
        return self._git.run(
            ["ls-files", "-z", "--others", "--exclude-standard"],
            cwd=folder,
            git_dir=self._git_dir,
            work_tree=folder,
            timeout_s=60,
            memory_bytes=LISTING_BYTES,
            when_slow=lambda: remove_traps(self._top),
        )

    def _store(self, paths: Iterable[str]) -> str:
        began = time.time_ns()
        new = 0
        stored: dict[str, _Seen | None] = {}
        changed: list[tuple[str, os.stat_result]] = []
        left_out = []
        with Folders(self._top) as folders:
            for path in sorted(paths):
                if path.count("/") > MAX_DEPTH:
                    left_out.append(path)
                    continue
                found = folders.stat(path, or_raise=True)
                if found is None or not (
                    stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)
                ):
                    continue
                seen = _Seen.of(found)
                new += (own := path not in self._kept)
                if (
                    names_git(path)
                    or (own and new > MAX_NEW_FILES)
                    or self._is_too_much(path, seen)
                ):
                    left_out.append(path)
                    if path in self._stored:  # the trees have it as it was
                        stored[path] = self._stored[path]
                    continue
                stored[path] = seen if seen.ctime < began - _SETTLED_NS else None
                if self._stored.get(path) != seen:
                    changed.append((path, found))
            gone = [path for path in self._stored if path not in stored]
            self.left_out = tuple(left_out)
            if changed or gone or not self._commit:
                self._import(folders, gone, changed, stored)
        self._stored = stored
        return self._tree

    def _is_too_much(self, path: str, seen: _Seen) -> bool:
        """Tell whether the file is too large, or the record would grow too much by it."""
        size = 0 if self._stored.get(path) == seen else seen.size
        if path in self._kept and not self._commit:
            return False  # the user's own
        if size > self._max_file_bytes and path not in self._kept:
            return True
        if self._sent + size > MAX_RECORD_BYTES:
            return True
        self._sent += size
        return False

    def _import(
        self,
        folders: Folders,
        gone: list[str],
        changed: list[tuple[str, os.stat_result]],
        stored: dict[str, _Seen | None],
    ) -> None:
        command = self._git.command(
            ["fast-import", "--quiet", "--done", "--force"],
            git_dir=self._git_dir,
            config=("core.compression=1", "core.fsync=committed,loose-object"),
        )
        process = subprocess.Popen(
            command,
            cwd=self._git_dir,
            env=self._git.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # as in hostgit
        )
        assert process.stdin is not None and process.stderr is not None
        try:
            with suppress(BrokenPipeError):  # then its message says why
                out = process.stdin
                out.write(f"commit {_REF}\ncommitter Tenuto <tenuto@localhost> 0 +0000\n".encode())
                out.write(b"data 0\n")
                if self._commit:
                    out.write(f"from {self._commit}\n".encode())
                for path in gone:
                    out.write(b"D " + _quoted(self._prefix + path) + b"\n")
                for path, found in changed:
                    self._send(out, folders, path, found, stored)
                out.write(b"\ndone\n")
                out.close()
            process.stdin.close()
            message = process.stderr.read()
            if process.wait() != 0:
                raise failure("fast-import", message)
        finally:
            process.kill()
            process.stderr.close()
            process.wait()
        ids = self._run(["rev-parse", _REF, f"{_REF}^{{tree}}"]).decode().split()
        self._commit, self._tree = ids

    def _send(
        self,
        out: IO[bytes],
        folders: Folders,
        path: str,
        found: os.stat_result,
        stored: dict[str, _Seen | None],
    ) -> None:
        name = _quoted(self._prefix + path)
        try:
            if stat.S_ISLNK(found.st_mode):
                target = os.fsencode(folders.readlink(path))
                out.write(b"M 120000 inline " + name + b"\n" + _data(target))
                return
            with folders.open(path) as file:
                mode = b"100755" if found.st_mode & 0o100 else b"100644"
                size = os.fstat(file.fileno()).st_size
                head = b"M " + mode + b" inline " + name + b"\n"
                out.write(head + f"data {size}\n".encode())
                _copy_exactly(file, out, size)
                out.write(b"\n")
        except BrokenPipeError:
            raise
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise from_os_error(error, f"reading {path} in the workspace") from error
            # Removed or replaced since it was listed.
            del stored[path]
            out.write(b"D " + name + b"\n")

    def _patch(self, base: str, tree: str, *options: str, git_dir: Path | None = None) -> bytes:
        return self._run(
            [
                *("diff-tree", "-p", "-r", "--binary", "--full-index", self._renames(base, tree)),
                *("--no-ext-diff", "--no-textconv", "--no-color", "--submodule=short"),
                *("--src-prefix=a/", "--dst-prefix=b/", "--diff-algorithm=histogram"),
                *(base, tree, *options),
            ],
            git_dir=git_dir,
        )

    def _renames(self, base: str, tree: str) -> str:
        """Return the option for renames: told only where each path plays one part in the patch.

        ``git apply`` refuses some patches in which the old place of a renamed file, or a folder on
        the way to it, is taken by something else.
        """
        changes = list(self._raw(base, tree, "--find-renames"))
        names = [name for *_, both in changes for name in both]
        plain = (
            len(set(names)) == len(names)
            and not _nested(names)
            and all(status != "T" for _, _, status, _ in changes)
        )
        return "--find-renames" if plain else "--no-renames"

    def _raw(self, base: str, tree: str, option: str) -> Iterator[tuple[str, str, str, list[str]]]:
        """Yield the changes between two trees: old blob, new blob, kind of change, paths."""
        raw = self._run(["diff-tree", "-r", "-z", "--raw", option, base, tree])
        fields = os.fsdecode(raw).split("\0")
        while len(fields) > 1:
            _, _, old, new, status = fields.pop(0).split(" ")
            count = 2 if status[0] in "RC" else 1
            yield old, new, status[0], [fields.pop(0) for _ in range(count)]

    def _utf8_patch(self, base: str, tree: str) -> str:
        texts: list[str] = []
        binaries: list[str] = []
        changes = list(self._raw(base, tree, self._renames(base, tree)))
        with self._git.blobs(self._git_dir) as read:
            for old, new, _, names in changes:
                plain = _is_utf8(old, read) and _is_utf8(new, read)
                (texts if plain else binaries).extend(names)
        if _nested(texts + binaries):
            # A path given to git also means what is below it, so the two parts would overlap.
            return self._patch(base, tree, git_dir=self._all_binary()).decode()
        patch = b""
        if texts:
            patch += self._patch(base, tree, "--", *texts)
        if binaries:
            patch += self._patch(base, tree, "--", *binaries, git_dir=self._all_binary())
        return patch.decode()

    def _write_changes(self, now: str, tree: str) -> None:
        raw = self._run(["diff-tree", "-r", "-z", "--raw", "--no-renames", now, tree])
        fields = os.fsdecode(raw).split("\0")
        gone: list[str] = []
        written: list[_Change] = []
        for header, path in zip(fields[0:-1:2], fields[1::2], strict=False):
            _, mode, _, blob, status = header.split(" ")
            inner = path.removeprefix(self._prefix)
            if status == "D":
                gone.append(inner)
            else:
                written.append(_Change(mode, blob, inner))
        try:
            with Folders(self._top) as folders, self._git.blobs(self._git_dir) as read:
                rules = [c for c in written if PurePosixPath(c.path).name == ".gitignore"]
                for change in rules:
                    with suppress(OSError):  # something is in its way yet
                        folders.put(change.path, change.mode, read(change.blob))
                if rules:
                    # What these rules cover came into view only while they were gone: it stays.
                    self._released = frozenset(gone) - self._kept - self._listed()
                    gone = [path for path in gone if path not in self._released]
                for path in gone:
                    folders.remove(path)
                for change in written:
                    folders.put(change.path, change.mode, read(change.blob))
        except OSError as error:
            raise from_os_error(error, "rolling back") from error


def _is_utf8(blob: str, read: Callable[[str], bytes]) -> bool:
    if set(blob) == {"0"}:
        return True
    try:
        read(blob).decode()
    except UnicodeDecodeError:
        return False
    return True


def _quoted(path: str) -> bytes:
    """Return a path in fast-import's C style."""
    plain = b"".join(
        bytes((byte,)) if 0x20 <= byte < 0x7F and byte not in b'"\\' else b"\\%03o" % byte
        for byte in os.fsencode(path)
    )
    return b'"' + plain + b'"'


def _data(content: bytes) -> bytes:
    return f"data {len(content)}\n".encode() + content + b"\n"


def _copy_exactly(source: IO[bytes], out: IO[bytes], size: int) -> None:
    """Copy ``size`` bytes; zeros stand in if the file shrinks meanwhile."""
    left = size
    while left:
        chunk = source.read(min(left, _CHUNK)) or bytes(min(left, _CHUNK))
        out.write(chunk)
        left -= len(chunk)


def _nested(names: Sequence[str]) -> bool:
    """Tell whether one of the paths is a folder on the way to another."""
    folders = {str(folder) for name in names for folder in PurePosixPath(name).parents}
    return not folders.isdisjoint(names)
