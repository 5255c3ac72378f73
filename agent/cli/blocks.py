"""Rendering of calls, their results and the model's text for a terminal."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from agent.text import visible
from model.messages import ToolCall
from tools.types import Observation

SHOWN_LINES = 12
TAIL_LINES = 5
SHOWN_CHARACTERS = 200
_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}
_MARKS = {"completed": ("[x]", "green"), "in_progress": ("[>]", "bold"), "pending": ("[ ]", "")}
_MARKDOWN = re.compile(r"[*_`#|]|^\s*(?:[-+>]|\d+[.)])\s", re.MULTILINE)
_FENCE = re.compile(r"^\s*(?:```|~~~)", re.MULTILINE)


def call_lines(call: ToolCall) -> Iterator[Text]:
    """Yield the lines of a call: an edit as a diff, a plan as a list, others in one line."""
    given = call.arguments
    match call.name, given:
        case "edit", {"file_path": str(path), "old_string": str(old), "new_string": str(new)}:
            yield _title(call.name, path)
            yield from _folded(list(_diff(old, new)))
        case "write_file", {"file_path": str(path), "content": str(content)}:
            yield _title(call.name, path)
            yield from _folded([_diff_line(f"+{line}") for line in content.splitlines()])
        case "apply_patch", {"patch": str(patch)}:
            yield _title(call.name, "")
            yield from _folded([_diff_line(line) for line in patch.splitlines()])
        case "todo_write", {"todos": list(todos)} if all(isinstance(t, Mapping) for t in todos):
            yield _title(call.name, "")
            yield from _folded([_todo(todo) for todo in todos])
        case _:
            yield _title(call.name, arguments_text(given))


def result_lines(call: ToolCall, seen: Observation) -> Iterator[Text]:
    """Yield what a call gave, folded; of a command the end, which tells how it went, stays."""
    if call.name == "todo_write" and seen.ok:
        return  # the list stands above
    style = "" if seen.ok else "red"
    lines = [_line(short(line), style) for line in visible(seen.text).split("\n")]
    tail = TAIL_LINES if call.name == "run_shell_command" else 0
    yield from _folded(lines, tail=tail)


def text_block(text: str) -> RenderableType:
    """Return a block of the model's visible text, as Markdown where it is that."""
    shown = visible(text).strip("\n")
    if not _MARKDOWN.search(shown):
        return Text(shown)
    from rich.markdown import Markdown

    # A link that a terminal makes of it could name one place and lead to another.
    return Markdown(shown, hyperlinks=False, code_theme="ansi_dark")


def complete_blocks(text: str) -> tuple[str, str]:
    """Split ``text`` after its last empty line outside a fence: what is whole, and the rest."""
    end = 0
    for found in re.finditer(r"\n[^\S\n]*\n", text):
        if len(_FENCE.findall(text[: found.end()])) % 2 == 0:
            end = found.end()
    return text[:end], text[end:]


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """Return ``file_path=src/a.py limit=…`` on one line."""
    parts = (f"{name}={short(str(value))}" for name, value in arguments.items())
    return short(" ".join(parts).replace("\n", "⏎"))


def short(text: str) -> str:
    """Return at most ``SHOWN_CHARACTERS`` of ``text``."""
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def _title(name: str, rest: str) -> Text:
    return Text(visible(f"▸ {name} {rest}".rstrip()), style="bold cyan")


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style)


def _folded(lines: list[Text], *, tail: int = 0) -> Iterator[Text]:
    """Yield the first lines, and the last ``tail``, with a word on how many are left out."""
    if len(lines) <= SHOWN_LINES + (1 if tail else 0):
        yield from lines
        return
    yield from lines[: SHOWN_LINES - tail]
    yield _line(f"… {len(lines) - SHOWN_LINES} more lines", "dim")
    if tail:
        yield from lines[-tail:]


def _diff(old: str, new: str) -> Iterator[Text]:
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=2)
    # The first two name files, which the title does.
    for line in list(lines)[2:]:
        if not line.startswith("@@"):
            yield _diff_line(line)


def _diff_line(line: str) -> Text:
    return _line(short(visible(line)), _DIFF_STYLES.get(line[:1], ""))


def _todo(todo: Mapping[str, Any]) -> Text:
    mark, style = _MARKS.get(str(todo.get("status")), ("[ ]", ""))
    return _line(f"{mark} {short(visible(str(todo.get('content', ''))))}".replace("\n", " "), style)
