"""The configuration files: the user's own, and the ``.agent.toml`` of a repository."""

from __future__ import annotations

import os
import stat
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from sandboxes.errors import WorkspaceError
from sandboxes.paths import config_dir
from sandboxes.workspace.users_repository import find_repository

REPOSITORY_FILE = ".agent.toml"
MAX_FILE_BYTES = 65_536
TABLES = frozenset({"rules", "hooks", "mcp"})
"""Tables of the files that ``agent.control.policy`` reads."""


def user_file() -> Path:
    """Return ``$XDG_CONFIG_HOME/tenuto/config.toml``, or the one under ``~/.config``."""
    return config_dir() / "config.toml"


def repository_files(repo: Path | None) -> list[Path]:
    """Return where ``.agent.toml`` may lie: in the folder given, then at the repository's top."""
    if repo is None:
        return []
    folders = [repo]
    with suppress(WorkspaceError):
        folders.append(find_repository(repo).top)
    if folders[-1] == repo.resolve():
        del folders[1:]
    return [folder / REPOSITORY_FILE for folder in folders]


def read_settings(path: Path, *, trusted: bool = True) -> dict[str, Any]:
    """Return the file's keys without the tables that are no settings. Raises ``ConfigError``."""
    values = read_toml(path, trusted=trusted)
    return {key: value for key, value in values.items() if key not in TABLES}


def read_toml(path: Path, *, trusted: bool = True) -> dict[str, Any]:
    """Return the file's top-level keys; empty if there is no file. Raises ``ConfigError``.

    A file that is not the user's own (``trusted`` is False) must be a plain file.
    """
    # An untrusted path may be a link to anywhere or a pipe that never ends: open without following
    # and without waiting, then look at what was opened.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if trusted else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        hint = "" if trusted else "; it must be a plain file"
        raise ConfigError(f"cannot read {path}: {error.strerror}{hint}") from error
    try:
        # Before it becomes a file object, which a folder cannot be.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigError(f"{path} is not a plain file; remove it or make it one")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES} bytes; it holds settings only")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split()) or "nested too deep"
        raise ConfigError(f"{path} is not valid TOML: {reason}") from error
