"""The contract every sandbox keeps: run commands, keep a shell, read and write files.

A sandbox owns one workspace (a private clone of the user's repository, see ``workspace.py``) and a
place to run commands in it. Everything that comes out of a sandbox is untrusted.

Paths given to a sandbox are relative to the workspace, or absolute inside it (``root``). A path
that leaves the workspace, by ``..``, by being absolute, or through a symbolic link, raises
``PathEscape``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from sandboxes.stop import Stop
from sandboxes.workspace.workspace import Workspace


@dataclass(frozen=True)
class Limits:
    """Limits of a sandbox. ``output_bytes`` is how much of one command's output is kept.

    ``writable`` is for Docker alone: commands run as root, with the engine's usual capabilities,
    and may change the whole container, as tasks that install or configure something need it.
    """

    memory_mb: int = 4096
    pids: int = 512
    cpus: float = 2.0
    disk_mb: int = 4096
    output_bytes: int = 1_000_000
    network: bool = False
    writable: bool = False


@dataclass(frozen=True)
class ExecResult:
    """Result of one command.

    ``output`` is stdout and stderr together in the order written, decoded as UTF-8 with
    replacement. If more than ``Limits.output_bytes`` came, the middle is left out, a line in its
    place says so, and ``dropped_bytes`` says how much.

    ``exit_code`` is None exactly when the command did not end by itself: ``timed_out`` (everything
    it started was killed; also when ``stop`` ended it), ``shell_died`` (the shell was
    killed, or replaced by ``exec``; the next command gets a new one in the workspace root), or
    ``running`` (it goes on; ``Shell.wait`` gives the rest). ``cause`` says why the sandbox itself
    ended it, if it did. ``duration_s`` counts from the command's start. ``exit N``, ``set -e``
    and ``exec`` end a command with that exit code. They and a time-out cost the shell its functions
    and its variables that are not exported; the folder and the exported ones stay.

    ``saved`` is the path inside the sandbox of a file with all of the command's output so far, if
    that was asked for and is long; ``saved_lost`` is how many bytes at its end did not fit.
    """

    output: str
    exit_code: int | None
    duration_s: float
    timed_out: bool = False
    shell_died: bool = False
    dropped_bytes: int = 0
    running: bool = False
    saved: str | None = None
    saved_lost: int = 0
    cause: str = ""


@dataclass(frozen=True)
class Running:
    """A command that was left running in the shell."""

    command: str
    elapsed_s: float
    silent_s: float


class Shell(Protocol):
    """One bash kept open: working directory and environment last from command to command."""

    def run(
        self,
        command: str,
        *,
        timeout_s: float,
        silence_s: float | None = None,
        save_over: int | None = None,
        on_output: Callable[[str], None] | None = None,
        stop: Stop | None = None,
    ) -> ExecResult:
        """Run ``command`` and wait for it, at most ``timeout_s`` seconds; then it is killed.

        With ``silence_s`` a command that prints nothing for so long is left ``running``. With
        ``save_over`` more than so many bytes of output are kept in a file. ``on_output`` sees the
        output as it arrives. ``stop`` is looked at a few times a second; once it is set the
        command's processes are killed and ``exit_code`` is None.

        Raises ``SandboxGone`` if the sandbox itself is no more, and ``ShellBusy`` while an earlier
        command runs.
        """
        ...

    def running(self) -> Running | None:
        """Return the command that was left running, if there is one."""
        ...

    def wait(
        self,
        *,
        timeout_s: float,
        on_output: Callable[[str], None] | None = None,
        stop: Stop | None = None,
    ) -> ExecResult:
        """Wait for the running command, at most ``timeout_s`` seconds; then it goes on running.

        ``output`` is what came since the last result. Raises ``ValueError`` if none is running.
        """
        ...

    def interrupt(self) -> None:
        """Send SIGINT to what the running command started, if one is running."""
        ...

    def stop(self) -> ExecResult:
        """Kill what the running command started. Raises ``ValueError`` if none is running."""
        ...

    def close(self) -> None:
        """End the shell and everything it started. Never raises."""
        ...


class Sandbox(Protocol):
    """A workspace plus a place to run commands in it.

    A context manager: leaving it removes both.
    """

    @property
    def kind(self) -> str:
        """``docker``, ``bubblewrap`` or ``local``."""
        ...

    @property
    def root(self) -> str:
        """The workspace's absolute path as commands inside see it."""
        ...

    @property
    def workspace(self) -> Workspace:
        """The private clone, on the host."""
        ...

    def shell(self) -> Shell:
        """Return the session's shell, started at first use and again after it died."""
        ...

    def second_shell(self) -> Shell:
        """Another shell, in the workspace root, for what is not the model's own command."""
        ...

    def renew(self) -> None:
        """End all that runs, and give the next command an empty home and scratch folder.

        Only the workspace stays. Raises ``SandboxError``.
        """
        ...

    def fresh(self) -> AbstractContextManager[None]:
        """Have commands see a tree made anew from the patch, until the context ends.

        All that runs is ended before and after, as with ``renew``. Raises ``SandboxError``.
        """
        ...

    def read_bytes(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """Return the file's content (its first ``max_bytes``).

        Raises ``FileNotFoundError``, ``IsADirectoryError``, ``PathEscape``.
        """
        ...

    def write_bytes(self, path: str, data: bytes, *, executable: bool | None = None) -> None:
        """Write the whole file, whole or not at all; keeps the mode of an existing file.

        ``executable`` sets or clears the permission to run it. Missing parent folders are made.
        Raises ``IsADirectoryError``, ``PathEscape``.
        """
        ...

    def remove(self, path: str) -> None:
        """Remove the file. Raises ``FileNotFoundError``, ``IsADirectoryError``, ``PathEscape``."""
        ...

    def resolve(self, path: str) -> Path:
        """Return the host path of ``path``, proven inside the workspace. Raises ``PathEscape``."""
        ...

    def relative(self, path: str) -> str:
        """Return ``path`` as written from the workspace root, with ``/``. Raises ``PathEscape``."""
        ...

    def close(self) -> None:
        """Stop everything and remove what was made. May be called twice; never raises."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
