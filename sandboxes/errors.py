"""Errors of sandboxes.

SandboxError
├── SandboxUnavailable   the engine or program is not installed, not running, or refuses us
├── ImageMissing         the image is not there and cannot be had
├── SandboxGone          the container or process died under us
├── ShellBusy            the shell still runs a command that was left running
├── WorkspaceError       the repository cannot be cloned, diffed, or applied to
│   └── NotARepository   the folder that was named is no git repository with files
└── PathEscape           a path that leaves the workspace

Each message is one line that says what is wrong and what to do.
"""

from __future__ import annotations


class SandboxError(Exception):
    """Base of every error the sandboxes raise on purpose."""


class SandboxUnavailable(SandboxError):
    """The engine is not installed, not running, or may not be used by this user."""


class ImageMissing(SandboxError):
    """The image is not on this machine and could not be built or pulled."""


class SandboxGone(SandboxError):
    """The sandbox died under us (killed, out of memory, engine stopped)."""


class ShellBusy(SandboxError):
    """A command was left running in the shell, which takes no other one meanwhile."""


class WorkspaceError(SandboxError):
    """The repository cannot be used: not a git one, no disk space, a patch that does not apply."""


class NotARepository(WorkspaceError):
    """The folder that was named is no git repository with files."""


class PathEscape(SandboxError):
    """The path leads out of the workspace."""
