"""Finding the user's repository and listing its files, by reading alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandboxes.errors import NotARepository, WorkspaceError
from sandboxes.workspace.git_traps import find_git, refuse_rule_traps, refuse_traps
from sandboxes.workspace.host_git import HostGit, git_missing


@dataclass(frozen=True)
class Repository:
    """The folder to work on and the repository it belongs to.

    ``top`` is the top of the working tree; ``prefix`` is ``folder`` below it ("" or "sub/dir/").
    ``excludes`` are the user's ignore rules that are in no ``.gitignore``. ``head`` is the commit
    that is checked out, "" before the first.
    """

    folder: Path
    top: Path
    prefix: str
    has_commits: bool
    excludes: str
    head: str = ""

    def is_partial(self, git: HostGit) -> bool:
        """Tell whether git would fetch objects that this repository lacks from where it says.

        A repository names there what git runs for that. Newer ones of git can be told not to
        (``GIT_NO_LAZY_FETCH``); with an older one such a repository is refused.

        Raises ``WorkspaceError``.
        """
        keys = r"^(extensions\.partialclone|remote\..*\.promisor)$"
        try:
            git.run(["config", "--includes", "--get-regexp", keys], cwd=self.folder)
        except WorkspaceError:  # no such key
            return False
        if not keeps_from_fetching(git.version()):
            raise WorkspaceError(
                f"{self.folder} is a partial clone, from which this git could run programs; "
                "update git to 2.39.4 or later, or give a full clone"
            )
        return True

    def list_files(self, git: HostGit) -> tuple[list[str], list[str]]:
        """Return tracked files, and untracked ones that are not ignored, from ``folder``."""
        self.is_partial(git)
        listing = ["ls-files", "-z", "--full-name"]
        tracked = self._listed(git, [*listing, "--cached"])
        others = self._listed(git, [*listing, "--others", "--exclude-standard"])
        if not tracked and not others and self.prefix and any(self.folder.iterdir()):
            raise WorkspaceError(
                f"every file in {self.folder} is ignored by the repository at {self.top}; "
                f"run git init in {self.folder} or give another folder"
            )
        return self._with_inner(git, tracked), self._with_inner(git, others)

    def list_ignored(self, git: HostGit) -> list[str]:
        """Return files that an ignore rule covers and that are not tracked, from ``folder``."""
        listing = ["ls-files", "-z", "--full-name", "--others", "--ignored", "--exclude-standard"]
        return self._listed(git, listing)

    def _with_inner(self, git: HostGit, names: list[str]) -> list[str]:
        """Return ``names`` with each submodule or repository replaced by its own files."""
        files = []
        for name in names:
            inner = self.folder / name.rstrip("/")
            if inner.is_symlink() or not inner.is_dir():
                files.append(name)
            elif (inner / ".git").exists():
                try:
                    found = find_repository(inner)
                except WorkspaceError:
                    continue
                if found.top == inner.resolve():
                    tracked, others = found.list_files(git)
                    files += [f"{name.rstrip('/')}/{path}" for path in (*tracked, *others)]
        return files

    def _listed(self, git: HostGit, arguments: list[str]) -> list[str]:
        rules = git.excludes_file(self.excludes)
        listed = git.run(
            arguments,
            cwd=self.folder,
            config=(f"core.excludesFile={rules}",),
            when_slow=lambda: refuse_rule_traps(self.folder),
        )
        names = {name for name in os.fsdecode(listed).split("\0") if name}
        return sorted(name.removeprefix(self.prefix) for name in names)


def find_repository(path: Path) -> Repository:
    """Return the repository that ``path`` is the top of or lies in. Raises ``WorkspaceError``."""
    git = _gitpython()
    folder = path.expanduser().absolute()
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise NotARepository(f"{folder} {what}; give the folder of a git repository")
    folder = folder.resolve()
    if (found := find_git(folder)) is not None:
        refuse_traps(found[1])
    try:
        repo = git.Repo(folder, search_parent_directories=True, expand_vars=False)
    except (git.exc.InvalidGitRepositoryError, git.exc.NoSuchPathError) as error:
        raise NotARepository(
            f"{folder} is not in a git repository; run git init there first"
        ) from error
    except (OSError, ValueError) as error:
        raise WorkspaceError(f"{folder} cannot be read as a git repository: {error}") from error
    with repo:
        if repo.bare or repo.working_tree_dir is None:
            raise NotARepository(f"{folder} is a bare repository; give a clone with files")
        top = Path(repo.working_tree_dir).resolve()
        if not folder.is_relative_to(top):
            raise NotARepository(f"{folder} is not in the working tree {top}; give that folder")
        prefix = folder.relative_to(top).as_posix()
        head = _head(repo)
        return Repository(
            folder=folder,
            top=top,
            prefix="" if prefix == "." else prefix + "/",
            has_commits=bool(head),
            excludes=_excludes(repo),
            head=head,
        )


def branch_of(folder: Path) -> str:
    """Return the branch that is checked out where ``folder`` lies; "" for none or no repository."""
    try:
        found = find_git(folder.resolve())
        if found is None:
            return ""
        descriptor = os.open(found[1] / "HEAD", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            head = file.read(1024).decode("utf-8", "replace").strip()
    except (OSError, WorkspaceError):
        return ""
    return head.removeprefix("ref: refs/heads/") if head.startswith("ref: refs/heads/") else ""


# The first release of each line that heeds GIT_NO_LAZY_FETCH (CVE-2024-32004 and 32465).
_NO_LAZY_FETCH = {39: 4, 40: 2, 41: 1, 42: 2, 43: 4, 44: 1}


def keeps_from_fetching(version: tuple[int, int, int]) -> bool:
    """Tell whether git of this version heeds ``GIT_NO_LAZY_FETCH``."""
    major, minor, patch = version
    if major != 2 or minor > max(_NO_LAZY_FETCH):
        return major > 2 or minor > max(_NO_LAZY_FETCH)
    return minor in _NO_LAZY_FETCH and patch >= _NO_LAZY_FETCH[minor]


def _head(repo: Any) -> str:
    """Return the commit that HEAD names, "" if none, told by the refs alone.

    To look the commit up the library would run git with the repository's own settings, and git may
    then fetch a missing commit with a program that they name.
    """
    try:
        return str(repo.head.dereference_recursive(repo, repo.head.path) or "")
    except (OSError, TypeError, ValueError):
        return ""


def _excludes(repo: Any) -> str:
    """Return the rules of ``core.excludesFile``, then of ``info/exclude``, since those win.

    The rules go into the copy. So what the repository names, as opposed to the user, counts only
    if it lies in the repository: it could name a key.
    """
    inside = (Path(repo.working_tree_dir).resolve(), Path(repo.common_dir).resolve())
    named = _setting(repo, "repository")
    own = Path(named).expanduser() if named else None
    text = _rules(own if own is not None and _lies_in(own, inside) else _users_excludes(repo))
    exclude = Path(repo.common_dir) / "info" / "exclude"
    if _lies_in(exclude, inside):
        text += _rules(exclude)
    return text


def _users_excludes(repo: Any) -> Path:
    for level in ("global", "user", "system"):
        if named := _setting(repo, level):
            return Path(named).expanduser()
    config_home = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(config_home) if config_home.startswith("/") else Path.home() / ".config"
    return base / "git" / "ignore"


def _setting(repo: Any, level: str) -> str:
    """Return ``core.excludesFile`` as set at ``level``, or nothing."""
    try:
        return str(repo.config_reader(level).get_value("core", "excludesfile", ""))
    except Exception:  # a configuration the library cannot parse names no file
        return ""


def _lies_in(path: Path, folders: tuple[Path, ...]) -> bool:
    try:
        real = path.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return False
    return any(real.is_relative_to(folder) for folder in folders)


def _rules(file: Path) -> str:
    try:
        if not file.is_file():  # a pipe would block, a device never end
            return ""
        return file.read_text(errors="surrogateescape") + "\n"
    except OSError:
        return ""


def _gitpython() -> Any:
    """Import GitPython, which looks for git when imported and fails if there is none."""
    try:
        import git
    except ImportError as error:
        raise git_missing() from error
    return git
