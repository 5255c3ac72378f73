"""Find the repository to work on, and the folder in it that the user stands in."""

from __future__ import annotations

import shlex
from pathlib import Path

from agent.errors import ConfigError
from agent.settings.table import Settings
from agent.settings.toml_files import REPOSITORY_FILE, read_settings
from sandboxes.workspace.users_repository import find_repository

STANDS = (
    "The user stands in {folder}/ and may name paths from there. Commands start at the "
    "repository's top."
)
CHECKED_THERE = " The check is run in {folder}/."


def stand(repo: Path, settings: Settings) -> tuple[Path, str]:
    """Return the repository around ``repo``, and the folder below its top: "" at the top.

    With ``settings.folder_alone`` the folder given is the whole repository. Raises
    ``WorkspaceError``.
    """
    found = find_repository(repo)
    if settings.folder_alone:
        return found.folder, ""
    return found.top, found.prefix.rstrip("/")


def standing_text(repo: Path, folder: str, check: str | None) -> str:
    """Return what the first prompt says of where the user stands; "" at the top."""
    if not folder:
        return ""
    there = CHECKED_THERE if check and folder_of_check(repo, folder, check) else ""
    return (STANDS + there).format(folder=folder)


def folder_of_check(repo: Path, folder: str, check: str) -> str:
    """Return the folder in which ``check`` runs: where the user stands.

    A check that the ``.agent.toml`` at the top names was written for the top.
    """
    if not folder:
        return ""
    try:
        at_top = read_settings(repo / REPOSITORY_FILE, trusted=False).get("check")
    except ConfigError:
        return folder
    return "" if at_top == check else folder


def command_in(folder: str, command: str) -> str:
    """Return a shell command that runs ``command`` in ``folder`` and leaves the shell where it is.

    With bash -c, so that a command that calls exit ends itself and not the shell.
    """
    run = f"bash -c {shlex.quote(command)}"
    return f"(cd -- {shlex.quote(folder)} && {run})" if folder else run
