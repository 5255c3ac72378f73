"""A small real sandbox over a temporary folder, and calls through the real registry."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxes.base import ExecResult
from sandboxes.errors import PathEscape
from tools.registry import Registry
from tools.types import Observation, ToolContext


class FolderShell:
    """Each command in its own bash; only the working directory is the sandbox's root."""

    def __init__(self, root: Path, output_bytes: int) -> None:
        self._root = root
        self._output_bytes = output_bytes

    def run(
        self,
        command: str,
        *,
        timeout_s: float,
        on_output: Callable[[str], None] | None = None,
        **_: Any,
    ) -> ExecResult:
        began = time.monotonic()
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=self._root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        timed_out = False
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            timed_out = True
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        dropped = max(0, len(output) - self._output_bytes)
        if dropped:
            half = self._output_bytes // 2
            note = f"\n[... {dropped} bytes left out ...]\n".encode()
            output = output[:half] + note + output[len(output) - half :]
        text = output.decode("utf-8", "replace")
        if on_output is not None:
            on_output(text)
        return ExecResult(
            text,
            None if timed_out else process.returncode,
            time.monotonic() - began,
            timed_out=timed_out,
            dropped_bytes=dropped,
        )

    def running(self) -> None:
        return None

    def close(self) -> None:
        pass


class FolderSandbox:
    """Keeps the part of the sandbox contract that tools use, over a plain folder."""

    kind = "folder"

    def __init__(self, root: Path, output_bytes: int = 1_000_000) -> None:
        self._root = root.resolve()
        self._shell = FolderShell(self._root, output_bytes)

    @property
    def root(self) -> str:
        return str(self._root)

    def shell(self) -> FolderShell:
        return self._shell

    def second_shell(self) -> FolderShell:
        return self._shell

    def resolve(self, path: str) -> Path:
        host = (self._root / path).resolve()
        if not host.is_relative_to(self._root):
            raise PathEscape(f"{path} leaves the workspace")
        return host

    def relative(self, path: str) -> str:
        whole = Path(os.path.normpath(self._root / path))
        if not whole.is_relative_to(self._root):
            raise PathEscape(f"{path} leaves the workspace")
        return whole.relative_to(self._root).as_posix()

    def read_bytes(self, path: str, *, max_bytes: int | None = None) -> bytes:
        with self.resolve(path).open("rb") as file:
            return file.read() if max_bytes is None else file.read(max_bytes)

    def write_bytes(self, path: str, data: bytes, *, executable: bool | None = None) -> None:
        host = self.resolve(path)
        host.parent.mkdir(parents=True, exist_ok=True)
        host.write_bytes(data)
        if executable is not None:
            host.chmod(0o755 if executable else 0o644)

    def remove(self, path: str) -> None:
        self.resolve(path).unlink()


class Bench:
    """A folder, its sandbox and registry: ``bench("edit", file_path=...)`` runs a call."""

    def __init__(self, root: Path, output_bytes: int = 1_000_000) -> None:
        self.root = root
        sandbox: Any = FolderSandbox(root, output_bytes)
        self.context = ToolContext(sandbox)
        self.registry = Registry(self.context)

    def __call__(self, name: str, /, **arguments: Any) -> Observation:
        return self.registry.run(name, arguments)

    def write(self, path: str, content: str | bytes) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, for the index."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own-cache"))
    return tmp_path / "own-cache"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    root = tmp_path / "workspace"
    root.mkdir()
    return Bench(root)


@pytest.fixture
def make_bench(tmp_path: Path) -> Callable[..., Bench]:
    def make(**options: Any) -> Bench:
        root = tmp_path / "other"
        root.mkdir()
        return Bench(root, **options)

    return make
