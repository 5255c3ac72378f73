"""The variables of the environment that are settings."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from agent.errors import ConfigError
from agent.settings.table import OPTIONS

PREFIX = "AGENT_"


def variable_of(key: str) -> str:
    """Return the name of the variable that gives the setting ``key``."""
    return f"{PREFIX}{key.upper()}"


def read_variables(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that ``variables`` give, without those that are plainly another's.

    Raises ``ConfigError`` for a name that is nearly that of a setting.
    """
    values: dict[str, Any] = {}
    for name, value in variables.items():
        if not name.startswith(PREFIX):
            continue
        key = name.removeprefix(PREFIX).lower()
        if key in OPTIONS:
            values[key] = value
        elif near := difflib.get_close_matches(key, OPTIONS, n=1, cutoff=0.75):
            raise ConfigError(
                f"unknown variable {name}: did you mean {variable_of(near[0])}? (else unset it)"
            )
    return values
