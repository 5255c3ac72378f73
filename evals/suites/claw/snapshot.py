"""Read what an attempt left in the agent's sandbox, for the makers' graders."""

from __future__ import annotations

import base64
import mimetypes
import shlex
from pathlib import PurePosixPath
from typing import Any

from evals.instance import Instance
from evals.suites.claw.task_files import find_file
from sandboxes.base import Sandbox
from sandboxes.errors import PathEscape

HOME = PurePosixPath("/workspace")
MAX_FILE, MAX_FILES, MAX_OUTPUT = 16_000_000, 50, 200_000
_TEXT = frozenset(("json", "xml", "yaml", "x-yaml", "javascript"))
_TEXT_ENDINGS = frozenset(
    (".txt", ".md", ".csv", ".json", ".yaml", ".yml", ".xml", ".html", ".htm", ".js", ".ts", ".py")
) | frozenset((".sh", ".bash", ".cfg", ".ini", ".toml", ".log", ".sql", ".r", ".rmd"))


def take_snapshot(instance: Instance, sandbox: Sandbox) -> dict[str, Any]:
    """Bring the grader's files in, run the task's commands, and read the files that it names.

    Raises ``SandboxError`` if the sandbox is gone; what is missing is an entry that says so.
    """
    task = instance.row["task"]
    limit = float(task.get("environment", {}).get("env_snapshot_timeout") or 10)
    if not (task.get("env_snapshot_commands") or task.get("env_snapshot_files")):
        return {}
    # Nothing that the agent left running may touch what is graded.
    sandbox.renew()
    for name in task.get("sandbox_grader_files") or ():
        if (path := find_file(instance, str(name))) is not None:
            sandbox.write_bytes(str(name), path.read_bytes())
    found: dict[str, Any] = {}
    for command in task.get("env_snapshot_commands") or ():
        found[f"cmd:{command}"] = _run(sandbox, str(command), limit)
    for pattern in task.get("env_snapshot_files") or ():
        for name in _names(sandbox, str(pattern)):
            found[f"file:{name}"] = _read(sandbox, name)
    return found


def _run(sandbox: Sandbox, command: str, limit: float) -> dict[str, Any]:
    """Run a command; its errors go to a file, since a shell here has one stream."""
    shell = sandbox.second_shell()
    errors = "/tmp/tenuto-errors"
    try:
        done = shell.run(f"bash -c {shlex.quote(command)} 2>{errors}", timeout_s=limit)
        if done.exit_code is None:
            return {"exit_code": -1, "stdout": "", "stderr": f"Timed out after {limit:g}s"}
        said = shell.run(f"head -c {MAX_OUTPUT} {errors}", timeout_s=limit)
    finally:
        shell.close()
    return {"exit_code": done.exit_code, "stdout": done.output, "stderr": said.output}


def _names(sandbox: Sandbox, pattern: str) -> list[str]:
    """Return the paths, as the makers name them, that a pattern stands for."""
    if "*" not in pattern and "?" not in pattern:
        return [pattern]
    path = PurePosixPath(pattern)
    if path.is_absolute() and not path.is_relative_to(HOME):
        return []
    inside = path.relative_to(HOME) if path.is_absolute() else path
    root = sandbox.workspace.path
    matches = sorted(p for p in root.glob(str(inside)) if p.is_file() and not p.is_symlink())
    return [str(HOME / p.relative_to(root).as_posix()) for p in matches[:MAX_FILES]]


def _read(sandbox: Sandbox, name: str) -> dict[str, Any]:
    path = PurePosixPath(name)
    inside = str(path.relative_to(HOME)) if path.is_relative_to(HOME) else name
    try:
        data = sandbox.read_bytes(inside, max_bytes=MAX_FILE)
    except (OSError, PathEscape):
        return {"error": f"File not found: {name}"}
    kind = mimetypes.guess_type(name)[0]
    if _is_text(kind, path.suffix.lower()):
        text = data.decode("utf-8", "replace")
        return {"content": text, "mime_type": kind or "text/plain", "encoding": "utf-8"}
    encoded = base64.b64encode(data).decode()
    mime = kind or "application/octet-stream"
    return {"content": encoded, "mime_type": mime, "encoding": "base64"}


def _is_text(kind: str | None, ending: str) -> bool:
    if kind is None:
        return ending in _TEXT_ENDINGS
    return kind.startswith("text/") or kind.removeprefix("application/") in _TEXT
