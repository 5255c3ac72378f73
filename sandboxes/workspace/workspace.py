"""The private copy of the user's repository that a session works on.

A workspace is a folder ``ID`` under ``parent``; beside it, the link ``ID.owner`` says whose it is:

- ``tree``       what the sandbox sees and may change in every way, with a ``.git`` for the model
- ``store.git``  our own record of it: the baseline and the checkpoints
- ``git-home``   git's settings for everything run here
- ``outputs``    long outputs of commands, which the sandbox may read

The ``.git`` in ``tree`` is never used on the host once a sandbox has run, since its settings could
make git run programs. The user's repository is only read, except by ``apply_to``.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from sandboxes.errors import WorkspaceError
from sandboxes.paths import Owner, private_dir, state_dir, workspaces_dir
from sandboxes.workspace.copying import copy_files, modes_and_times, set_modes_and_times
from sandboxes.workspace.exchange import Exchange
from sandboxes.workspace.host_git import RAW_ATTRIBUTES, HostGit, from_os_error
from sandboxes.workspace.kept_tree import KeptTree, Origin, after_a_kill
from sandboxes.workspace.patching import apply_patch
from sandboxes.workspace.safe_tree import remove_tree
from sandboxes.workspace.snapshots import SnapshotStore
from sandboxes.workspace.users_repository import Repository, find_repository

MAX_FILE_BYTES = 50 * 1024**2
# Enough for git log and blame; the whole history of a large project takes minutes to copy.
HISTORY_COMMITS = 200
CLONE_TIMEOUT_S = 120.0
# For the git that the model runs, so that it can commit.
_MODEL_CONFIG = "[user]\n\tname = Tenuto\n\temail = tenuto@localhost\n[gc]\n\tauto = 0\n"


class Workspace:
    """A private copy of a repository with the user's uncommitted and untracked files in it.

    ``path`` is the copy, ``repo`` the folder it was made from. ``left_out`` names files that were
    not copied or are not in the last diff: untracked ones over the size limit, unreadable ones, and
    those that no git would take (``.GIT/x``).
    A context manager: leaving it removes the copy.
    """

    def __init__(
        self, folder: Path, repository: Repository, git: HostGit, store: SnapshotStore
    ) -> None:
        """Take the parts that ``create`` has made; it also fills the folder."""
        self._folder = folder
        self._repository = repository
        self._git = git
        self._store = store
        self._baseline = ""
        self._head = repository.head
        self._not_copied: tuple[str, ...] = ()
        self._with_ignored = False
        self._found: Mapping[str, tuple[int, int]] = {}
        self.path = folder / "tree"
        self.repo = repository.folder

    @property
    def outputs(self) -> Path:
        """A folder for long outputs of commands, beside the copy."""
        return self._folder / "outputs"

    @classmethod
    def create(
        cls,
        repo: Path,
        *,
        parent: Path | None = None,
        max_file_bytes: int = MAX_FILE_BYTES,
        ignored: bool = False,
    ) -> Workspace:
        """Copy ``repo`` as it is on disk now: commits, and changed and untracked files.

        ``repo`` may be a folder inside a repository: then only that folder is copied, as the root,
        without history; the patch still applies from the repository's top. Untracked files over
        ``max_file_bytes`` are not copied (see ``left_out``), nor ignored ones unless ``ignored``
        asks for them; those are never in the patch.

        Raises ``WorkspaceError``; nothing is left behind then.
        """
        with _fresh_folder(repo, parent) as (folder, repository):
            git = HostGit(folder / "git-home")
            store_dir = git.new_store(folder / "store.git")
            store = _store(git, store_dir, folder, repository, max_file_bytes)
            workspace = cls(folder, repository, git, store)
            workspace._fill(max_file_bytes, ignored)
        return workspace

    @classmethod
    def reopen(
        cls,
        repo: Path,
        origin: Origin,
        tree: str,
        *,
        parent: Path | None = None,
        ignored: bool = False,
    ) -> Self:
        """Make a copy whose files are those of ``tree``, a checkpoint in a record that was kept.

        The user's files are not read (but for the ignored ones if ``ignored`` asks for them): what
        changed in ``repo`` since makes no difference, and ``diff`` stays relative to where the
        session began. The model's own commits are not kept; its ``.git`` shows the history of
        ``repo`` up to ``origin.head`` if that is still there.

        Raises ``WorkspaceError``; nothing is left behind then, and the record stays.
        """
        with _fresh_folder(repo, parent) as (folder, repository):
            git = HostGit(folder / "git-home")
            after_a_kill(origin.record)
            store = _store(git, origin.record, folder, repository, MAX_FILE_BYTES)
            workspace = cls(folder, repository, git, store)
            workspace._refill(origin, tree)
            if ignored:
                workspace._copy_ignored(MAX_FILE_BYTES)
        return workspace

    @classmethod
    def of_image(
        cls,
        repo: Path,
        fill: Callable[[Path], None],
        *,
        parent: Path | None = None,
        origin: Origin | None = None,
        tree: str = "",
    ) -> Self:
        """Work on a folder as ``fill`` lays it out, of which every file and ``.git`` stays.

        Nothing is added to it, no history and no commit. Checkpoints and the patch hold what no
        ignore rule covers, without ``.git`` folders, of 20,000 files at most. ``repo`` is an
        empty repository that stands for the user's. With ``origin`` and ``tree`` the files are
        those of a checkpoint in a record that was kept. Raises ``WorkspaceError`` and what ``fill``
        does; nothing is left behind then.
        """
        with _fresh_folder(repo, parent) as (folder, repository):
            git = HostGit(folder / "git-home")
            if origin is not None:
                after_a_kill(origin.record)
            record = origin.record if origin else git.new_store(folder / "store.git")
            store = _store(git, record, folder, repository, MAX_FILE_BYTES)
            workspace = cls(folder, repository, git, store)
            workspace.path.mkdir(mode=0o755)
            fill(workspace.path)
            workspace._with_ignored = True
            workspace._baseline = workspace._snapshot()
            if origin is not None:
                workspace._baseline = origin.baseline
                workspace.rollback(tree)
        return workspace

    def keep_record(self, place: Path) -> Origin:
        """Move the record of baseline and checkpoints to ``place``, where ``close`` leaves it.

        Returns what ``reopen`` needs. Raises ``WorkspaceError``.
        """
        try:
            self._store.move_to(place)
        except OSError as error:
            raise from_os_error(error, "keeping the record of the workspace") from error
        return Origin(place, self._baseline, self._head)

    def changed_since(self, origin: Origin) -> list[str]:
        """Return what differs in the user's repository since the session began, for a person.

        ``HEAD`` if it moved, and files that were there then and are changed or gone.
        """
        kept = self._kept_tree(origin)
        head = ["HEAD"] if self._repository.head != origin.head else []
        return head + kept.changed_in(self._repository.folder)

    @property
    def baseline(self) -> str:
        """The tree that ``diff`` is relative to."""
        return self._baseline

    @property
    def head(self) -> str:
        """The user's commit that the copy was made from; "" before the first."""
        return self._head

    @property
    def left_out(self) -> tuple[str, ...]:
        """Files that are not in the copy, or not in the last diff, and so not in the patch."""
        return self._not_copied + self._store.left_out

    def diff(self, since: str = "") -> str:
        """Return what changed as a git patch for the user's tree; "" if nothing.

        ``since`` is a checkpoint to compare with; without one it is the baseline.

        New, deleted, renamed, mode-changed and binary files and links are included; files that an
        ignore rule covers are not, unless they were there from the start.
        """
        return self._store.diff(since or self._baseline, self._snapshot())

    def checkpoint(self) -> str:
        """Remember the files as they are now. Returns the id for ``rollback``."""
        return self._snapshot()

    def changed_blobs(self, checkpoint: str) -> dict[str, str]:
        """Return the git blob of each file that differs from the baseline, "" of one that is gone.

        Raises ``WorkspaceError`` if there is no such checkpoint.
        """
        changes = self._store.changes(self._baseline, checkpoint)
        return {path: after.blob for path, (_, after) in changes.items()}

    def first_blob(self, path: str) -> str:
        """Return the git blob that the baseline has at ``path``, "" if there is none."""
        return self._store.entry(self._baseline, path).blob

    def rollback(self, checkpoint: str) -> None:
        """Put the files back as they were at ``checkpoint``. Ignored files and ``.git`` stay.

        Raises ``WorkspaceError`` if there is no such checkpoint or the disk is full.
        """
        if not self._store.has_tree(checkpoint):
            raise WorkspaceError(f"there is no checkpoint {checkpoint} in this workspace")
        self._store.restore(checkpoint)

    def rebase(self, tree: str) -> None:
        """Let ``diff`` be relative to ``tree``, a checkpoint: the user's files are like it now."""
        self._baseline = tree

    def exchange(self) -> Exchange:
        """Return a way to carry single files between the copy and the user's folder."""
        return Exchange(self._git, self._store, self._repository, self.path, self._folder)

    def tidy(self) -> None:
        """Remove what is in no checkpoint: ignored files that the session made, empty folders.

        Then the files are those that the patch gives. Ignored files that were copied from the
        user's folder stay, and so does all else in that case. Raises ``WorkspaceError``.
        """
        if self._with_ignored:
            return
        self._snapshot()
        try:
            self._store.remove_others()
        except OSError as error:
            raise from_os_error(error, "clearing ignored files away") from error

    @contextmanager
    def fresh_tree(self, owner: tuple[int, int] | None = None) -> Iterator[None]:
        """Have in ``path`` a tree made anew from the patch, and at the end the old one again.

        It is the user's repository as the session found it (its git, modes and times), with what
        the patch changes; ``owner`` (uid, gid) gets it. Nothing may run on the copy when this
        begins or ends. Raises ``WorkspaceError``.
        """
        tree = self._snapshot()
        origin = Origin(self._store.place, self._baseline, self._head)
        aside = self._folder / "aside"
        parent = self._folder / "fresh"
        with self.reopen(self.repo, origin, tree, parent=parent, ignored=self._with_ignored) as new:
            changed = self._store.changes(self._baseline, tree)
            kept = {path: found for path, found in self._found.items() if path not in changed}
            set_modes_and_times(new.path, kept)
            if owner is not None:
                new.give_to(*owner)
            try:
                self.path.rename(aside)
                new.path.rename(self.path)
            except OSError as error:
                raise from_os_error(error, "laying out a fresh tree") from error
            try:
                yield
            finally:
                self.path.rename(new.path)
                aside.rename(self.path)

    def apply_to(self, repo: Path, patch: str) -> None:
        """Apply ``patch`` to the files of ``repo``, all of it or nothing. The index stays as it is.

        Raises ``WorkspaceError`` if it does not apply.
        """
        apply_patch(self._git, self._folder / "apply.git", repo, patch)

    def give_to(self, uid: int, gid: int) -> None:
        """Make ``uid`` the owner of every file in the copy. Only before a sandbox runs on it."""
        for _path, folders, files, fd in os.fwalk(self.path, follow_symlinks=False):
            for name in (*folders, *files):
                os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
        os.chown(self.path, uid, gid)
        self._store.forgive_owner_change()

    def close(self) -> None:
        """Remove the copy. May be called twice; never raises."""
        with suppress(OSError):
            remove_workspace(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _snapshot(self) -> str:
        try:
            return self._store.snapshot()
        except OSError as error:
            raise from_os_error(error, "recording the workspace") from error

    def _fill(self, max_file_bytes: int, ignored: bool) -> None:
        self._clone_history()
        tracked, untracked = self._repository.list_files(self._git)
        untracked = self._less_our_own(untracked)
        copied, self._not_copied = copy_files(
            self._repository.folder, self.path, tracked, untracked, max_file_bytes
        )
        self._commit_baseline()
        self._baseline = self._store.first(copied)
        self._found = modes_and_times(self.path, copied)
        if ignored:
            self._copy_ignored(max_file_bytes)

    def _copy_ignored(self, max_file_bytes: int) -> None:
        self._with_ignored = True
        names = self._less_our_own(self._repository.list_ignored(self._git))
        copy_files(self._repository.folder, self.path, names, [], max_file_bytes)

    def _refill(self, origin: Origin, tree: str) -> None:
        if not self._store.has_tree(origin.baseline) or not self._store.has_tree(tree):
            raise WorkspaceError(
                f"the files kept in {origin.record} are incomplete; the session cannot go on"
            )
        self._head = origin.head
        self._clone_history()
        kept = self._kept_tree(origin)
        kept.lay_out(self.path)
        self._commit_baseline()
        self._baseline = origin.baseline
        if self._store.first(kept.names()) != origin.baseline:
            raise WorkspaceError(f"the files kept in {origin.record} cannot be laid out again")
        self._store.restore(tree)

    def _kept_tree(self, origin: Origin) -> KeptTree:
        scratch = self._folder / "kept.git"
        prefix = self._repository.prefix
        return KeptTree(self._git, origin.record, scratch, origin.baseline, prefix=prefix)

    def _less_our_own(self, names: list[str]) -> list[str]:
        """Drop copies and sessions from ``names``: a home that is kept in git may hold them."""
        top = self._repository.folder
        own = (self._folder.parent.resolve(), state_dir().resolve())
        inside = tuple(f"{p.relative_to(top).as_posix()}/" for p in own if p.is_relative_to(top))
        return [name for name in names if not name.startswith(inside)]

    def _clone_history(self) -> None:
        """Make ``tree`` a repository with the last commits of the user's, and no files yet.

        ``--no-local`` makes git send the objects: hard links or alternates would let a process in
        the sandbox reach the user's own. Without commits, or where git cannot send them (a
        partial or damaged repository), the copy starts without history.
        """
        plain = not self._repository.prefix and not self._repository.is_partial(self._git)
        if self._repository.has_commits and plain and self._head:
            depth = f"--depth={HISTORY_COMMITS}"
            flags = ("--no-local", "--no-checkout", "--single-branch", "--template=", depth)
            arguments = ["clone", "--quiet", *flags, "--", str(self.repo), str(self.path)]
            try:
                self._git.run(arguments, cwd=self._folder, timeout_s=CLONE_TIMEOUT_S)
                if self._head != self._repository.head:
                    self._in_tree("fetch", "--quiet", depth, "origin", self._head)
                    self._in_tree("update-ref", "HEAD", self._head)
                self._in_tree("read-tree", "HEAD")
                self._in_tree("remote", "remove", "origin")
            except WorkspaceError as error:
                if "disk space" in str(error):
                    raise
                remove_tree(self.path)
            self._forget_origin()
        if not (self.path / ".git").is_dir():
            arguments = ["init", "--quiet", "--template=", str(self.path)]
            self._git.run(arguments, cwd=self._folder)
        info = self.path / ".git" / "info"
        info.mkdir(exist_ok=True)
        (info / "exclude").write_text(self._repository.excludes)

    def _forget_origin(self) -> None:
        """Take the place of the user's repository out of what git noted of the clone."""
        git_dir = self.path / ".git"
        remove_tree(git_dir / "logs")
        for name in ("FETCH_HEAD", "ORIG_HEAD"):
            (git_dir / name).unlink(missing_ok=True)

    def _commit_baseline(self) -> None:
        """Commit the user's uncommitted state in the copy, so that git diff shows the model's."""
        with (self.path / ".git" / "config").open("a") as config:
            config.write(_MODEL_CONFIG)
        entries = os.fsdecode(self._in_tree("ls-files", "-z", "--stage")).split("\0")
        for entry in entries:
            # A submodule's files are plain files in the copy; its link would hide them.
            if entry.startswith("160000 "):
                self._in_tree("update-index", "--force-remove", entry.split("\t", 1)[1])
        try:
            self._in_tree("add", "--all")
        except WorkspaceError as error:
            if "disk space" in str(error):
                raise
            # A file is not in the encoding that .gitattributes tells of it.
            (self.path / ".git" / "info" / "attributes").write_text(RAW_ATTRIBUTES)
            self._in_tree("add", "--all")
        if not self._repository.has_commits or self._in_tree("status", "--porcelain"):
            message = "Files as they were when the session began"
            self._in_tree("commit", "--quiet", "--allow-empty", "--no-verify", "-m", message)

    def _in_tree(self, *arguments: str) -> bytes:
        # Only while the copy is made: afterwards its .git is not ours any more.
        return self._git.run(
            arguments, cwd=self.path, git_dir=self.path / ".git", work_tree=self.path
        )


@contextmanager
def _fresh_folder(repo: Path, parent: Path | None) -> Iterator[tuple[Path, Repository]]:
    """Yield a new stamped folder for a copy of ``repo``; remove it if its use fails."""
    repository = find_repository(repo)
    place = parent or workspaces_dir()
    folder = place / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    try:
        private_dir(place)
        write_stamp(folder)
        folder.mkdir(mode=0o700)
        (folder / "outputs").mkdir()
        (folder / "outputs").chmod(0o755)  # whoever commands run as may read it
        yield folder, repository
    except OSError as error:
        remove_workspace(folder)
        raise from_os_error(error, f"copying {repository.folder}") from error
    except BaseException:
        remove_workspace(folder)
        raise


def _store(
    git: HostGit, record: Path, folder: Path, repository: Repository, max_file_bytes: int
) -> SnapshotStore:
    (record / "info" / "exclude").write_text(repository.excludes)
    return SnapshotStore(
        git, record, folder / "tree", prefix=repository.prefix, max_file_bytes=max_file_bytes
    )


def stamp_path(folder: Path) -> Path:
    """Return the file that names the owner of the workspace ``folder``."""
    return folder.with_name(folder.name + ".owner")


def write_stamp(folder: Path) -> None:
    """Say that this process owns the workspace ``folder``.

    The stamp is the target of a symbolic link, which one system call makes: a kill or a full disk
    leaves all of it or nothing.
    """
    stamp_path(folder).symlink_to(str(Owner.of_this_process()))


def read_stamp(stamp: Path) -> tuple[Owner | None, float]:
    """Return the owner ``stamp`` names and when it was made, in seconds since 1970.

    Raises ``OSError`` if it is no stamp.
    """
    return Owner.parse(str(stamp.readlink())), stamp.lstat().st_mtime


def remove_workspace(folder: Path) -> bool:
    """Remove a workspace and then its stamp, so that a kill in between leaves it to ``prune``."""
    gone = remove_tree(folder)
    if gone:
        stamp_path(folder).unlink(missing_ok=True)
    return gone


def name_some(paths: Sequence[str], most: int = 20) -> str:
    """Name the first ``most`` of ``paths`` and say how many more there are."""
    more = len(paths) - most
    named = ", ".join(paths[:most])
    return f"{named} and {more} more" if more > 0 else named
