"""Join the sources: flags over variables over ``.agent.toml`` over the user's own file.

Of the repository, the file in the folder to work on comes before the one at its top. A key that is
not known is an error that names the nearest one; a key that a repository may not set is one too.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.errors import ConfigError
from agent.settings.table import IMAGE_KEYS, OPTIONS, REPOSITORY_KEYS, Settings
from agent.settings.toml_files import read_settings, repository_files, user_file
from agent.settings.variables import read_variables, variable_of

Layer = tuple[str, Mapping[str, Any]]
"""A source's name and the values it gives."""


def load_settings(flags: Mapping[str, Any], repo: Path | None = None) -> Settings:
    """Return the settings that the four sources give; a flag that is None was not given.

    Raises ``ConfigError`` for an unknown key, a key that a repository may not set, or a bad value.
    """
    own_file = user_file()
    variables = read_variables(os.environ)
    layers: list[Layer] = [
        ("the command line", {key: value for key, value in flags.items() if value is not None}),
        *((name, {key: value}) for key, (name, value) in variables.items()),
        *((str(path), _read_repository(path)) for path in repository_files(repo)),
        (str(own_file), read_settings(own_file)),
    ]
    for name, values in layers:
        for key in values:
            if key not in OPTIONS:
                raise ConfigError(f"unknown key {key!r} in {name}{_nearest(key)}")
    merged: dict[str, Any] = {}
    for _, values in reversed(layers):
        if IMAGE_KEYS & values.keys():
            # Who names an image stands above who named another one, in whatever way.
            for key in IMAGE_KEYS:
                merged.pop(key, None)
        merged |= values
    if len(given := sorted(IMAGE_KEYS & merged.keys())) > 1:
        raise ConfigError(f"{' and '.join(given)} are given together; give one of them")
    return check_settings(merged, layers)


def check_settings(values: Mapping[str, Any], layers: Sequence[Layer]) -> Settings:
    """Return ``values`` as settings. Raises ``ConfigError`` that names a bad value's source."""
    try:
        return Settings(**values)
    except ValidationError as error:
        raise ConfigError(_explain(error, layers)) from error


def reason_of(first: Mapping[str, Any]) -> str:
    """Say what is wrong with a value, in TOML's words. ``first`` is one of pydantic's errors."""
    reason = str(first["msg"]).removeprefix("Value error, ").replace("valid tuple", "list")
    return reason[:1].lower() + reason[1:]


def _read_repository(path: Path) -> dict[str, Any]:
    """Return what the repository's own file says, if it is allowed to say it."""
    values = read_settings(path, trusted=False)
    for key in values:
        if key in OPTIONS and key not in REPOSITORY_KEYS:
            raise ConfigError(
                f"{path} sets {key!r}, which a repository may not decide; remove it there and "
                f"set it yourself: a flag, {variable_of(key)}, or {user_file()}"
            )
    return values


def _nearest(key: str) -> str:
    """Return ``": did you mean 'x'?"``, or the known keys if none is near."""
    near = difflib.get_close_matches(key.lower().replace("-", "_"), OPTIONS, n=1)
    if near:
        return f": did you mean {near[0]!r}?"
    return f"; known keys: {', '.join(sorted(OPTIONS))}"


def _explain(error: ValidationError, layers: Sequence[Layer]) -> str:
    """Describe the first thing that is wrong, with the source that said it."""
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0]) if first["loc"] else "?"
    value = first.get("input")
    if key == "pass_env":
        value = _names_alone(value)
    source = next((name for name, values in layers if key in values), "the defaults")
    return f"{key} = {value!r} in {source}: {reason_of(first)}"


def _names_alone(value: Any) -> Any:
    """Return what ``pass_env`` was given without the values: they may be secrets."""
    entries = value if isinstance(value, (list, tuple)) else [value]
    return [str(entry).partition("=")[0] for entry in entries]
