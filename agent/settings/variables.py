"""The variables of the environment that are settings: ``TENUTO_`` and the key in capitals."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from agent.errors import ConfigError
from agent.settings.table import OPTIONS

PREFIX = "TENUTO_"
OLD_PREFIX = "AGENT_"
NOT_OLD = frozenset(
    {
        *("build", "check", "image", "n", "workdir"),
        *("search_path", "ignored_files", "writable", "keep_state", "network", "setup"),
        *("memory_mb", "disk_mb", "cpus"),
    }
)
"""Keys whose old variable is not read: build servers set ``AGENT_WORKDIR`` and its like for
themselves, or it says what a machine is."""
OWN = frozenset({"DEBUG", "LOG", "NATIVE", "PROCESS", "SESSION", "OWNER"})
"""What follows ``TENUTO_`` in variables that are no settings."""


def variable_of(key: str) -> str:
    """Return the name of the variable that gives the setting ``key``."""
    return f"{PREFIX}{key.upper()}"


def read_variables(variables: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    """Return the settings that ``variables`` give: by key, the variable's name and its value.

    Raises ``ConfigError`` for a name of ours that is nearly that of a setting.
    """
    found = {key: (name, variables[name]) for key, name in _old_names(variables)}
    for name, value in variables.items():
        if not name.startswith(PREFIX) or name.removeprefix(PREFIX) in OWN:
            continue
        key = name.removeprefix(PREFIX).lower()
        if key in OPTIONS:
            found[key] = (name, value)
        elif near := difflib.get_close_matches(key, OPTIONS, n=1, cutoff=0.75):
            raise ConfigError(
                f"unknown variable {name}: did you mean {variable_of(near[0])}? (else unset it)"
            )
    return found


def old_variable_lines() -> list[str]:
    """Say which variables of this process are settings under their old name, one line each."""
    return [
        f"{name} is an old name, which a later version will not read; set {variable_of(key)}"
        for key, name in _old_names(os.environ)
        if variable_of(key) not in os.environ
    ]


def unread_variables() -> list[str]:
    """Return the variables of this process that look like settings and are not read."""
    old = {name for _, name in _old_names(os.environ)}
    known = {variable_of(key) for key in OPTIONS} | {PREFIX + name for name in OWN}
    return sorted(
        name
        for name in os.environ
        if (name.startswith(OLD_PREFIX) and name not in old)
        or (name.startswith(PREFIX) and name not in known)
    )


def _old_names(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the key and the name of each old variable that is read."""
    for key in OPTIONS:
        if key not in NOT_OLD and (name := f"{OLD_PREFIX}{key.upper()}") in variables:
            yield key, name
