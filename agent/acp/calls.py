"""The look of one tool call in an editor: its title, kind, places, and content."""

from __future__ import annotations

import base64
import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from acp.schema import (
    ContentToolCallContent,
    FileEditToolCallContent,
    ImageContentBlock,
    PlanEntry,
    TextContentBlock,
    ToolCallLocation,
)

from model.errors import PictureError
from model.messages import ToolCall
from model.vision.picture import Picture
from tools.edits.preview import Change
from tools.types import Observation, ToolKind

Kind = Literal["read", "edit", "search", "execute", "think", "fetch", "other"]
Content = ContentToolCallContent | FileEditToolCallContent

TITLE_CHARACTERS = 120
SHOWN_CHARACTERS = 16_000
SHOWN_PICTURE = 4 << 20
"""The bytes of the largest picture that is shown to an editor."""

_KINDS: Mapping[str, Kind] = {
    "read_file": "read",
    "list_directory": "read",
    "repo_map": "read",
    "grep_search": "search",
    "glob": "search",
    "find_symbol": "search",
    "find_references": "search",
    "screenshot": "fetch",
    "todo_write": "think",
}
_BY_TOOL_KIND: Mapping[ToolKind, Kind] = {
    "read": "read",
    "edit": "edit",
    "command": "execute",
    "external": "other",
    "session": "other",
}


@dataclass(frozen=True)
class Places:
    """Two places: the user's folder, and the copy's root as the model names it."""

    folder: Path
    root: str

    def users(self, path: str) -> str:
        """Return the user's absolute path for one that a call names."""
        if path == self.root or path.startswith(self.root.rstrip("/") + "/"):
            path = path[len(self.root) :].lstrip("/")
        return os.path.normpath(self.folder / path)

    def shown(self, path: str) -> str:
        """Return the path from the folder, for a title."""
        return posixpath.relpath(self.users(path), self.folder)


def kind_of(name: str, kind: ToolKind | None) -> Kind:
    """Return the kind that an editor takes the tool for."""
    return _KINDS.get(name) or (_BY_TOOL_KIND[kind] if kind is not None else "other")


def title_of(call: ToolCall, places: Places) -> str:
    """Return one line that says what the call does."""
    given = call.arguments
    path = given.get("file_path") or given.get("path")
    where = places.shown(path) if isinstance(path, str) and path else ""
    match call.name:
        case "read_file":
            text = f"Read {where}"
        case "edit" | "apply_patch":
            text = f"Edit {where}".rstrip()
        case "write_file":
            text = f"Write {where}"
        case "list_directory":
            text = f"List {where or '.'}"
        case "grep_search":
            text = f"Search {given.get('pattern', '')}" + (f" in {where}" if where else "")
        case "glob":
            text = f"Find {given.get('pattern', '')}" + (f" in {where}" if where else "")
        case "run_shell_command":
            text = f"{given.get('command', '')}"
        case "screenshot":
            text = f"Screenshot of {given.get('url_or_file', '')}"
        case "todo_write":
            text = "Plan"
        case _:
            name = given.get("name")
            text = call.name + (f" {name}" if isinstance(name, str) else "")
    text = " ".join(text.split()) or call.name
    return text if len(text) <= TITLE_CHARACTERS else text[: TITLE_CHARACTERS - 1] + "…"


def locations_of(
    call: ToolCall, places: Places, changes: Sequence[Change] = ()
) -> list[ToolCallLocation]:
    """Return the files that the call is about, with the line where that is known."""
    if changes:
        return [
            ToolCallLocation(path=places.users(change.path), line=_first_line(change))
            for change in changes
        ]
    path = call.arguments.get("file_path")
    if not isinstance(path, str) or not path:
        return []
    offset = call.arguments.get("offset")
    line = offset if isinstance(offset, int) and offset > 0 else None
    return [ToolCallLocation(path=places.users(path), line=line)]


def diffs(changes: Sequence[Change], places: Places) -> list[Content]:
    """Return the changed files before and after, whole."""
    return [
        FileEditToolCallContent(
            type="diff",
            path=places.users(change.path),
            old_text=change.old,
            new_text=change.new or "",
        )
        for change in changes
    ]


def written_diff(call: ToolCall, places: Places) -> list[Content]:
    """Return the diff that a recorded call tells of itself: only the text it names."""
    given = call.arguments
    path = given.get("file_path")
    new = given.get("new_string") if call.name == "edit" else given.get("content")
    if call.name not in ("edit", "write_file") or not isinstance(path, str):
        return []
    old = given.get("old_string") if call.name == "edit" else None
    return [
        FileEditToolCallContent(
            type="diff",
            path=places.users(path),
            old_text=old if isinstance(old, str) else None,
            new_text=new if isinstance(new, str) else "",
        )
    ]


def text_content(text: str) -> Content:
    """Put text as it is in a fence that it cannot close; a long one without its middle."""
    if len(text) > SHOWN_CHARACTERS:
        half = SHOWN_CHARACTERS // 2
        text = f"{text[:half]}\n[…]\n{text[-half:]}"
    fence = "```"
    while fence in text:
        fence += "`"
    shown = f"{fence}\n{text.rstrip()}\n{fence}"
    return ContentToolCallContent(type="content", content=TextContentBlock(type="text", text=shown))


def picture_blocks(pictures: Iterable[object]) -> list[ImageContentBlock]:
    """Return pictures as the protocol has them; without those that are large or gone."""
    blocks = []
    for picture in pictures:
        if not isinstance(picture, Picture):
            continue
        try:
            data = picture.data
        except PictureError:
            continue
        if len(data) <= SHOWN_PICTURE:
            text = base64.b64encode(data).decode()
            blocks.append(ImageContentBlock(type="image", data=text, mime_type=picture.media_type))
    return blocks


def result_content(seen: Observation) -> list[Content]:
    """Return what a call gave: its text, and its pictures."""
    shown: list[Content] = [text_content(seen.text)]
    for block in picture_blocks(seen.pictures):
        shown.append(ContentToolCallContent(type="content", content=block))
    return shown


def plan_of(arguments: Mapping[str, Any]) -> list[PlanEntry] | None:
    """Return the plan in a call of ``todo_write``; None if it has none."""
    todos = arguments.get("todos")
    if not isinstance(todos, list):
        return None
    entries = []
    for todo in todos:
        if not isinstance(todo, Mapping) or not isinstance(todo.get("content"), str):
            return None
        status = todo.get("status")
        if status not in ("pending", "in_progress", "completed"):
            return None
        entries.append(PlanEntry(content=todo["content"], priority="medium", status=status))
    return entries


def _first_line(change: Change) -> int:
    """Return the first line, counted from 1, in which before and after differ."""
    old, new = (change.old or "").split("\n"), (change.new or "").split("\n")
    pairs = zip(old, new, strict=False)
    return next(
        (at for at, (one, other) in enumerate(pairs, 1) if one != other), min(len(old), len(new))
    )
