"""A repository's notes to agents: AGENTS.md at its top, and those of its folders.

The one at the top goes into the first prompt. One further down is told once, with the result of the
first call that touches a file under its folder. Where a folder has no AGENTS.md, a QWEN.md or a
CLAUDE.md there counts for it. They are the repository's words and not the user's, so they are as
little trusted as any file of it: they are encoded as data, are cut at a size, and the model is told
whose words they are.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.types import Step
from model.messages import ToolCall
from sandboxes.base import Sandbox
from sandboxes.errors import SandboxError, SandboxGone, WorkspaceError
from sandboxes.workspace.host_git import names_git
from sandboxes.workspace.users_repository import find_repository
from tools.registry import Registry
from tools.types import Observation

NAMES = ("AGENTS.md", "QWEN.md", "CLAUDE.md")
MAX_CHARACTERS = 16_000
MAX_DEPTH = 32
_PLACES = ("file_path", "path", "directory")
INTRODUCTION = (
    "What the repository says to agents that work on it follows. Keep to it where it does not go "
    "against the task."
)
FOLDERS = "[{name}: what the repository says about work in {folder}/]"


def first_notes(repo: Path) -> str:
    """Return what the first prompt tells of ``repo``: its notes and those of the folders above it.

    "" if there are none. ``repo`` may be a folder inside a repository.
    """
    try:
        found = find_repository(repo)
    except WorkspaceError:
        return ""
    folders = [found.top]
    for part in found.prefix.strip("/").split("/") if found.prefix else ():
        folders.append(folders[-1] / part)
    notes = [note for folder in folders if (note := _of_folder(folder, found.top))]
    return "\n\n".join([INTRODUCTION, *notes]) if notes else ""


@dataclass
class RepositoryNotes:
    """The overseer that adds the notes of folders. ``steps`` are those so far."""

    sandbox: Sandbox
    steps: Sequence[Step]

    def before(self, call: ToolCall, registry: Registry) -> Observation | None:
        """Forbid nothing."""
        return None

    def after(self, call: ToolCall, seen: Observation) -> Observation:
        """Return ``seen`` with the notes of the folders it is the first to touch."""
        if not seen.ok:
            return seen
        for folder in self._folders(call):
            note = self._note(folder)
            if note is not None and not self._told(note.partition("\n")[0], seen):
                seen = seen.with_note(note)
        return seen

    def _folders(self, call: ToolCall) -> list[str]:
        """Return the folders that the call's paths lie in, below the root, from the top down."""
        found: dict[str, None] = {}
        for name in _PLACES:
            given = call.arguments.get(name)
            if not isinstance(given, str):
                continue
            try:
                path = self.sandbox.relative(given)
            except SandboxGone:
                raise
            except (SandboxError, OSError, ValueError):
                continue
            parts = path.split("/")[:MAX_DEPTH]
            for depth in range(1, len(parts) + 1):
                found["/".join(parts[:depth])] = None
        return [folder for folder in found if folder not in ("", ".")]

    def _note(self, folder: str) -> str | None:
        for name in NAMES:
            try:
                data = self.sandbox.read_bytes(
                    posixpath.join(folder, name), max_bytes=4 * MAX_CHARACTERS
                )
            except SandboxGone:
                raise
            except (SandboxError, OSError, ValueError):
                continue
            if text := _cut(data):
                return f"{FOLDERS.format(name=f'{folder}/{name}', folder=folder)}\n{text}"
        return None

    def _told(self, header: str, seen: Observation) -> bool:
        """Tell whether the model has read it before, also before the session was taken up again."""
        return header in seen.text or any(
            header in earlier.text for step in self.steps for earlier in step.observations
        )


def _of_folder(folder: Path, top: Path) -> str:
    for name in NAMES:
        try:
            # A link may lead to another file of the repository, but not into .git, or elsewhere.
            path = (folder / name).resolve(strict=True)
            inside = path.is_relative_to(top) and path.is_file()
            if not inside or names_git(path.relative_to(top).as_posix()):
                continue
            with path.open("rb") as file:
                data = file.read(4 * MAX_CHARACTERS)
        except (OSError, RuntimeError):
            continue
        if text := _cut(data):
            return f"[{(folder / name).relative_to(top)}]\n{text}"
    return ""


def _cut(data: bytes) -> str:
    """Return the text, at most ``MAX_CHARACTERS`` of it."""
    text = data.decode("utf-8", "replace").removeprefix("\ufeff").strip()
    more = len(text) - MAX_CHARACTERS
    return text if more <= 0 else f"{text[:MAX_CHARACTERS]}\n[cut here: read the file for the rest]"
