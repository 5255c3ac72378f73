"""Tasks that a narrow model cannot do, told before it works in vain.

The model that ships repairs one wrong line of a small Python module whose tests fail. Asked for
anything else it would go round in circles until a limit ends it. What can be seen before it begins
is looked at here: the words of the task, the check, and the module that the task names.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from agent.errors import ConfigError
from agent.run.cannot_run import why_it_cannot_run
from agent.run.open_session import OpenSession
from agent.types import CheckRun

NARROW = "embedded"
"""Name of the model that has such a scope."""
MAX_LINES, MAX_BYTES = 100, 6_000
"""Largest module, which with its tests and some tries fits into the context."""
HELP = (
    "The embedded model only repairs one wrong line of a small Python module that the task should "
    "name and whose check fails. For other work take another model: --model DIR or NAME; agent "
    "setup helps to choose one"
)

_FILE = re.compile(r"[\w./-]+\.py\b")
_OTHER_FILE = re.compile(r"[\w/-]\.(?:[jt]sx?|go|rs|rb|java|c|cc|cpp|h|hpp|html|css|sh|md)\b")
_FEATURE = re.compile(
    r"\b(?:feature request|new feature|implement|refactor)\b"
    r"|^\W*(?:please )?(?:add|create|write|build|support|rename|document|translate)"
    r" (?:a|an|the|some|more|new|support|tests?|docs|documentation|type hints)\b",
    re.IGNORECASE | re.MULTILINE,
)


def refuse_outside(session: OpenSession) -> None:
    """Raise ``ConfigError`` if a session that is to begin has a narrow model and another task."""
    if session.model.engine.name != NARROW:
        return
    tree = session.parts.workspace.path
    if (why := outside(session.saved.info.task, tree, session.check_before)) is not None:
        raise ConfigError(f"{why}. {HELP}")


def outside(text: str, tree: Path, before: CheckRun | None) -> str | None:
    """Return why a task is no repair of one line, None if it may be one."""
    if _FEATURE.search(text):
        return "this asks for new code"
    if before is not None and (why := _of_check(before, tree)) is not None:
        return why
    module = named_module(text, tree)
    if module is None:
        return _of_no_module(text, tree)
    return _of_module(module, module.relative_to(tree).as_posix())


def named_module(text: str, tree: Path) -> Path | None:
    """Return the first module that ``text`` names, or that a test file named there tests."""
    for name in (match[0] for match in _FILE.finditer(text)):
        path = tree / name.removeprefix("/workspace/").removeprefix("./").lstrip("/")
        candidates: tuple[Path, ...] = (path.with_name(path.name.removeprefix("test_")), path)
        for found in candidates:
            if tree in found.parents and ".." not in found.parts and found.is_file():
                return found
    return None


def _of_no_module(text: str, tree: Path) -> str | None:
    """Return what speaks against a task that names no module which is there."""
    if _OTHER_FILE.search(text) or _FILE.search(text):
        return "the task names no Python module of this repository"
    if next(tree.rglob("*.py"), None) is None:
        return "this repository has no Python module"
    return None


def _of_check(before: CheckRun, tree: Path) -> str | None:
    """Return what the check says against a repair."""
    if before.passed:
        return "the check passes already, so nothing tells what is wrong"
    if before.exit_code is None:
        return "the check does not end, so no repair can be told from another"
    why = why_it_cannot_run(before, tree)
    return None if why is None else f"the check cannot run: {why}"


def _of_module(module: Path, name: str) -> str | None:
    """Return what the module itself says against a repair of one line."""
    if module.is_symlink() or module.stat().st_size > MAX_BYTES:
        return f"{name} is too large ({module.stat().st_size:,} bytes)"
    text = module.read_bytes().decode("utf-8", "replace")
    if text.count("\n") > MAX_LINES:
        return f"{name} is too large ({text.count(chr(10)):,} lines)"
    if not text.strip():
        return f"{name} is empty"
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        said = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply"
        return f"{name} is no valid Python ({said})"
    return None
