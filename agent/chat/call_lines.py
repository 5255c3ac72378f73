"""Tool calls as a person reads them: one line each, edits as a diff, todos as a list."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from model.messages import ToolCall
from tools.types import Observation

LINE_CHARACTERS = 160
_MAIN = ("command", "file_path", "path", "pattern", "symbol", "name", "query", "url", "summary")
_MARKS = {"completed": "[x]", "in_progress": "[>]", "pending": "[ ]"}


def call_line(call: ToolCall) -> str:
    """Return the tool and what it is about, as one line."""
    main = next((str(call.arguments[key]) for key in _MAIN if call.arguments.get(key)), "")
    return _one_line(f"{call.name} {main}".strip())


def observation_lines(call: ToolCall, seen: Observation) -> tuple[list[str], str]:
    """Return the lines to show of what a call gave, and a diff in their place for an edit."""
    if seen.ok and (diff := _edit_diff(call.name, call.arguments)):
        return [], diff
    if seen.ok and call.name == "todo_write":
        return _todos(call.arguments.get("todos")), ""
    return seen.text.split("\n"), ""


def _edit_diff(name: str, arguments: Mapping[str, Any]) -> str:
    if name == "apply_patch":
        return str(arguments.get("patch") or arguments.get("input") or "")
    path = str(arguments.get("file_path", ""))
    if name == "write_file":
        return _diff("", str(arguments.get("content", "")), path)
    if name == "edit":
        old, new = str(arguments.get("old_string", "")), str(arguments.get("new_string", ""))
        return _diff(old, new, path)
    return ""


def _diff(old: str, new: str, path: str) -> str:
    lines = difflib.unified_diff(old.split("\n"), new.split("\n"), path, path, lineterm="")
    return "\n".join(list(lines)[2:])


def _todos(todos: Any) -> list[str]:
    if not isinstance(todos, Sequence) or isinstance(todos, str):
        return []
    items = [item for item in todos if isinstance(item, Mapping)]
    return [
        f"{_MARKS.get(str(item.get('status')), '[ ]')} {_one_line(str(item.get('content', '')))}"
        for item in items
    ]


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LINE_CHARACTERS else line[: LINE_CHARACTERS - 1] + "…"
