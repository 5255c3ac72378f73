"""Parts that the three sandboxes have in common: the files, the two shells, the end."""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from sandboxes.backends.disk_watch import DiskWatch, disk_usage
from sandboxes.base import Limits
from sandboxes.shell.command_output import OutputFolder
from sandboxes.shell.shell import BashShell, Stream
from sandboxes.workspace.safe_tree import SafeTree
from sandboxes.workspace.workspace import Workspace

OUTPUTS = "/outputs"


class CommonSandbox(ABC):
    """A ``Sandbox`` (see ``base.py``) but for where its commands run.

    A subclass calls ``_ready`` once commands can run, and keeps the rest of ``shell.ShellHost``.
    """

    kind: ClassVar[str]

    def __init__(self, workspace: Workspace, limits: Limits | None, files: SafeTree) -> None:
        self.workspace = workspace
        self._limits = limits or Limits()
        self._files = files
        self._closed = False
        self._watch: DiskWatch | None = None

    def _ready(self, outputs: str) -> None:
        """Make both shells and the disk watch.

        ``outputs`` is what commands call the folder of long outputs.
        """
        kept = OutputFolder(self.workspace.outputs, outputs)
        size = self._limits.output_bytes
        self._shell = BashShell(self, output_bytes=size, outputs=kept)
        self._second = BashShell(self, output_bytes=size, slot=1)
        path, limit_mb = self.workspace.path, self._limits.disk_mb
        spared = disk_usage(path) if self._limits.writable else 0
        self._watch = DiskWatch(path, limit_mb, self._kill_all, spared)

    @property
    def root(self) -> str:
        return self._files.root

    def shell(self) -> BashShell:
        return self._shell

    def second_shell(self) -> BashShell:
        return self._second

    def renew(self) -> None:
        self._let_shells_go()
        self._stop_all()
        self._begin_again()

    @contextmanager
    def fresh(self) -> Iterator[None]:
        self._let_shells_go()
        self._stop_all()
        with self.workspace.fresh_tree(self._files.owner):
            self._begin()
            try:
                yield
            finally:
                self._let_shells_go()
                self._stop_all()
        self._begin_again()

    def _begin_again(self) -> None:
        """Begin on the session's own tree, which commands may have shut (``chmod 000 .``)."""
        with suppress(OSError):
            mode = stat.S_IMODE(self.workspace.path.stat().st_mode)
            if mode & 0o755 != 0o755:
                self.workspace.path.chmod(mode | 0o755)
        self._begin()

    def read_bytes(self, path: str, *, max_bytes: int | None = None) -> bytes:
        return self._files.read_bytes(path, max_bytes=max_bytes)

    def write_bytes(self, path: str, data: bytes, *, executable: bool | None = None) -> None:
        self._files.write_bytes(path, data, executable=executable)

    def remove(self, path: str) -> None:
        self._files.remove(path)

    def resolve(self, path: str) -> Path:
        return self._files.resolve(path)

    def relative(self, path: str) -> str:
        return self._files.relative(path)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._watch is not None:
            self._watch.end()
        self._end()
        self._let_shells_go()
        self.workspace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def trouble(self) -> str:
        return self._watch.trouble() if self._watch is not None else ""

    def stop_command(self, pid: int, since_s: float) -> None:
        """Stop the command, but spare the other shell and what it started."""
        self._stop_command(pid, since_s, self._other_than(pid))

    def interrupt_command(self, pid: int, since_s: float) -> None:
        self._interrupt_command(pid, since_s, self._other_than(pid))

    def _other_than(self, pid: int) -> list[int]:
        return [s.pid for s in (self._shell, self._second) if s.pid not in (0, pid)]

    def _let_shells_go(self) -> None:
        for name in ("_shell", "_second"):
            if (shell := getattr(self, name, None)) is not None:
                shell.let_go()

    @abstractmethod
    def start_shell(self, command: list[str], slot: int) -> Stream:
        """Start ``command`` as ``shell.ShellHost`` says."""

    @abstractmethod
    def shell_lives(self, pid: int) -> bool:
        """Tell whether the shell is there, as ``shell.ShellHost`` says."""

    @abstractmethod
    def kill_shell(self, pid: int) -> None:
        """Kill the shell as ``shell.ShellHost`` says."""

    @abstractmethod
    def _stop_command(self, pid: int, since_s: float, spared: list[int]) -> None:
        """Do as ``stop_command``, but spare the processes ``spared`` and what they started."""

    @abstractmethod
    def _interrupt_command(self, pid: int, since_s: float, spared: list[int]) -> None:
        """Do as ``interrupt_command``, but spare the processes ``spared`` and what they started."""

    @abstractmethod
    def _kill_all(self) -> None:
        """Kill all that runs inside; called on another thread. Raises ``SandboxError``."""

    @abstractmethod
    def _stop_all(self) -> None:
        """End all that runs, so that ``_begin`` finds nothing of it. Raises ``SandboxError``."""

    @abstractmethod
    def _begin(self) -> None:
        """Make it possible again to run commands. Raises ``SandboxError``."""

    @abstractmethod
    def _end(self) -> None:
        """End all that runs. Never raises."""
