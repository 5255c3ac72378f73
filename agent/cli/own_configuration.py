"""Change a few keys of the user's configuration file and leave the rest of it as it is."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

from agent.errors import ConfigError
from agent.settings.toml_files import read_toml, user_file
from sandboxes.paths import private_dir

Value = str | int | float | bool


def write_configuration(values: Mapping[str, Value]) -> Path:
    """Set ``values`` at the top of the user's file, which is made if there is none; return it.

    Comments and everything else stay. Raises ``ConfigError`` if the file cannot be read or written,
    or is of a form that these lines cannot be changed in.
    """
    path = user_file()
    old = read_toml(path)
    try:
        text = path.read_text("utf-8-sig") if path.exists() else ""
        new = with_values(text, values)
        if tomllib.loads(new) != {**old, **values}:
            raise ValueError("another meaning")
        private_dir(path.parent)
        draft = path.with_name(f".{path.name}.new")
        draft.write_text(new, "utf-8")
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
    except ValueError as error:
        lines = " and ".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
        raise ConfigError(f"{path} is not changed by itself; write there: {lines}") from error
    return path


def with_values(text: str, values: Mapping[str, Value]) -> str:
    """Return the TOML ``text`` with ``values`` at its top level, in place of what they were."""
    lines = text.splitlines()
    table = next((i for i, line in enumerate(lines) if line.startswith("[")), len(lines))
    head, rest = lines[:table], lines[table:]
    for key, value in values.items():
        line = f"{key} = {json.dumps(value, ensure_ascii=False)}"
        places = [i for i, old in enumerate(head) if old.partition("=")[0].strip() == key]
        if places:
            head[places[0]] = line
        else:
            while head and not head[-1].strip():
                head.pop()
            head.append(line)
    gap = [""] if rest and head and head[-1].strip() else []
    return "\n".join([*head, *gap, *rest]) + "\n"
