"""Completion in the input: slash commands at the beginning, files after an ``@``."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

MAX_FILES = 20_000
SHOWN = 12
_AT = re.compile(r"(?:^|\s)@([^\s@]*)$")


@dataclass
class ChatCompleter(Completer):
    """Offers ``commands`` (with their help) and the files of ``repo``, listed once."""

    commands: Mapping[str, str]
    repo: Path
    _names: list[str] | None = field(default=None)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        """Yield what may stand at the cursor."""
        before = document.text_before_cursor
        if before.startswith("/") and " " not in before and "\n" not in before:
            for name, help_text in self.commands.items():
                if name.startswith(before[1:]):
                    yield Completion(
                        f"/{name}", -len(before), display=f"/{name}", display_meta=help_text
                    )
            return
        if (match := _AT.search(before)) is None:
            return
        if self._names is None:
            self._names = repository_names(self.repo)
        for name in best_matches(match[1], self._names, SHOWN):
            yield Completion(f"@{name}", -len(match[1]) - 1, display=name)


def best_matches(typed: str, names: Sequence[str], most: int) -> list[str]:
    """Return the names that have the typed letters in order, the closest first."""
    scored = []
    for name in names:
        score = _score(typed.lower(), name.lower())
        if score is not None:
            scored.append((score, len(name), name))
    return [name for _, _, name in sorted(scored)[:most]]


def _score(typed: str, name: str) -> int | None:
    """Return how far apart the letters stand, 0 for the best; None if one is missing."""
    if not typed:
        return name.count("/")
    base = name.rpartition("/")[2]
    if typed in base:
        return 0 if base.startswith(typed) else 1
    if typed in name:
        return 2
    at, gaps = -1, 3
    for letter in typed:
        found = name.find(letter, at + 1)
        if found < 0:
            return None
        gaps += found - at - 1 if at >= 0 else 0
        at = found
    return gaps


def repository_names(repo: Path) -> list[str]:
    """Return the repository's files and folders as git lists them; folders end with a slash.

    A repository that git cannot list gives none: completion is a help, not a need.
    """
    from sandboxes.errors import SandboxError
    from sandboxes.workspace.host_git import HostGit
    from sandboxes.workspace.users_repository import find_repository

    try:
        with tempfile.TemporaryDirectory(prefix="tenuto-names-") as home:
            tracked, others = find_repository(repo).list_files(HostGit(Path(home)))
    except (SandboxError, OSError):
        return []
    files = [name for name in [*tracked, *others] if name.isprintable()][:MAX_FILES]
    folders = {f"{parent}/" for name in files for parent in Path(name).parents if parent.name}
    return [*sorted(folders), *files]
