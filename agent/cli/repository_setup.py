"""``agent setup --repo``: propose what a repository's ``.agent.toml`` may say, and write it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from agent.cli.own_configuration import with_values
from agent.errors import ConfigError
from agent.settings.table import IMAGE_KEYS
from agent.settings.toml_files import REPOSITORY_FILE, read_toml
from sandboxes.images.proposal import as_toml, propose
from sandboxes.workspace.users_repository import find_repository


def run(repo: Path, *, write: bool) -> tuple[list[str], dict[str, Any]]:
    """Propose keys for the repository around ``repo``; with ``write`` put them into its file.

    Returns lines for a person, and facts. What its ``.agent.toml`` says already stays. Raises
    ``ConfigError``, ``WorkspaceError``.
    """
    top = find_repository(repo).top
    path = top / REPOSITORY_FILE
    old = read_toml(path, trusted=False)
    proposal = propose(top)
    kept = {key for key in proposal.keys if key in old}
    if IMAGE_KEYS & old.keys():
        kept |= IMAGE_KEYS & proposal.keys.keys()
    new = {key: value for key, value in proposal.keys.items() if key not in kept}
    lines = [f"# {reason}" for reason in proposal.reasons]
    lines += as_toml(new).splitlines()
    lines += [f"# {key} stays as {path} has it" for key in sorted(kept)]
    facts: dict[str, Any] = {"proposal": new, "reasons": list(proposal.reasons), "written": None}
    if not proposal.keys:
        lines.append(f"# {top} has no file that says what a project needs: nothing to propose")
    elif not new:
        lines.append(f"# {path} says it all already")
    elif write:
        _write(path, old, new)
        facts["written"] = str(path)
        lines.append(f"# written to {path}; now: agent sandbox build --repo {top} --network bridge")
    else:
        lines.append(f"# agent setup --repo {top} --write puts this into {path}")
    return lines, facts


def _write(path: Path, old: dict[str, Any], values: dict[str, Any]) -> None:
    """Add ``values`` to the file. Raises ``ConfigError``; the file is as it was then."""
    try:
        text = path.read_text("utf-8-sig") if path.exists() else ""
        new = with_values(text, values)
        if tomllib.loads(new) != {**old, **values}:
            raise ValueError("another meaning")
        draft = path.with_name(f"{path.name}.new")
        with draft.open("x", encoding="utf-8") as file:
            file.write(new)
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not changed by itself; add the lines above") from error
