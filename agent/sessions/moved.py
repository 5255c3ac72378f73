"""Finding the repository of a session that was moved or renamed since."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from agent.errors import StoreError
from agent.sessions.store import SavedSession
from sandboxes.errors import WorkspaceError
from sandboxes.workspace.host_git import HostGit
from sandboxes.workspace.users_repository import find_repository

_COMMIT = re.compile(r"[0-9a-f]{40,64}")


def locate_repository(saved: SavedSession, given: Path | None = None) -> Path:
    """Return where the repository of ``saved`` lies now.

    That is ``given`` if there is one, else where it was, else the repository around the current
    folder if that has the commit on which the session began. Raises ``StoreError`` if it is not
    found, ``WorkspaceError`` if ``given`` is no repository.
    """
    if given is not None:
        found = find_repository(given)
        # Sessions without the setting began before it: the folder given was all of it.
        return found.folder if saved.info.settings.get("folder_alone", True) else found.top
    was = saved.info.repo
    if was.is_dir():
        return was
    try:
        here = find_repository(Path.cwd()).top
    except (OSError, WorkspaceError):
        here = None
    if here is not None and is_moved_to(saved, here):
        return here
    raise StoreError(
        f"{was}, the repository of session {saved.id}, does not exist; if it was moved, give its "
        "new place with --repo, or run this inside it"
    )


def is_moved_to(saved: SavedSession, repo: Path) -> bool:
    """Tell whether ``repo`` has the commit on which ``saved`` began, whose own place is gone."""
    commit = saved.info.head
    if saved.info.repo.is_dir() or not _COMMIT.fullmatch(commit):
        return False
    try:
        with tempfile.TemporaryDirectory(prefix="tenuto-git-") as home:
            HostGit(Path(home)).run(["cat-file", "-e", f"{commit}^{{commit}}"], cwd=repo)
    except (OSError, WorkspaceError):
        return False
    return True
