"""The one tool of the ``editor`` profile that views and changes files, with an undo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from tools import edit, list_directory, read_file, write_file
from tools.edits.saving import describe_new_problems, write_text
from tools.errors import ToolFailure
from tools.files.places import Place, locate, refuse_git, write
from tools.profiles.shown_tool import run_as
from tools.schema import Parameters
from tools.text.replace import NewlineMap, replace_at
from tools.text.text_file import count_lines
from tools.types import Observation, ToolContext, ToolSpec

NAME = "str_replace_editor"
WORDS = {
    "file_path": "path",
    "old_string": "old_str",
    "new_string": "new_str",
    "offset": "view_range",
    "read_file": "the command view",
    "list_directory": "the command view",
    "write_file": "the command create",
    "run_shell_command": "bash",
}


class EditorParameters(Parameters):
    """The parameters of the editor; each command takes some of them."""

    command: Literal["view", "create", "str_replace", "insert", "undo"] = Field(
        description="What to do: view a file or directory, or change a file."
    )
    path: str = Field(description="Path of the file, relative to the repository root.")
    view_range: list[int] | None = Field(
        default=None,
        description="For view: first and last line, counted from 1; -1 stands for the last line.",
    )
    file_text: str | None = Field(
        default=None, description="For create: the whole content of the file."
    )
    old_str: str | None = Field(
        default=None,
        description="For str_replace: the exact text to replace; it must occur only once.",
    )
    new_str: str | None = Field(
        default=None,
        description="For str_replace and insert: the new text; nothing to delete.",
    )
    insert_line: int | None = Field(
        default=None, ge=0, description="For insert: the line after which it goes; 0 for the top."
    )


def run(context: ToolContext, parameters: EditorParameters) -> Observation:
    """Do what the command says. A change can be taken back with undo."""
    if parameters.command == "view":
        return _view(context, parameters)
    place = locate(context.sandbox, parameters.path)
    refuse_git(place)
    if parameters.command == "undo":
        return _undo(context, place)
    before = _read_now(context, place)
    seen = _change(context, place, parameters)
    if seen.ok:
        context.seen.keep_version(place.real, before)
    return seen


def only_reads(arguments: Mapping[str, Any]) -> bool:
    """Tell whether a call with these arguments changes nothing."""
    return bool(arguments.get("command") == "view")


def _view(context: ToolContext, parameters: EditorParameters) -> Observation:
    if locate(context.sandbox, parameters.path).host.is_dir():
        return run_as(list_directory.TOOL, context, {"path": parameters.path}, WORDS)
    arguments: dict[str, Any] = {"file_path": parameters.path}
    if parameters.view_range:
        first, *rest = parameters.view_range
        if len(rest) > 1 or first < 1 or (rest and rest[0] != -1 and rest[0] < first):
            raise ToolFailure("view_range is a first and a last line, such as [1, 40] or [30, -1].")
        arguments["offset"] = first
        if rest and rest[0] != -1:
            arguments["limit"] = rest[0] - first + 1
    seen = run_as(read_file.TOOL, context, arguments, WORDS)
    if not seen.truncated:
        return seen
    # The header is ours; what follows is the file's.
    header, line_feed, text = seen.text.partition("\n")
    header = header.replace("offset and limit", "view_range")
    return replace(seen, text=f"{header}{line_feed}{text}")


def _change(context: ToolContext, place: Place, parameters: EditorParameters) -> Observation:
    if parameters.command == "create":
        text = _need(parameters.file_text, "create", "file_text")
        arguments = {"file_path": parameters.path, "content": text}
        return run_as(write_file.TOOL, context, arguments, WORDS)
    if parameters.command == "insert":
        text = _need(parameters.new_str, "insert", "new_str")
        line = _need(parameters.insert_line, "insert", "insert_line")
        return _insert(context, parameters.path, line, text)
    old = _need(parameters.old_str, "str_replace", "old_str")
    if not old:
        raise ToolFailure("old_str is empty: give the text to replace, or use create or insert.")
    arguments = {"file_path": parameters.path, "old_string": old}
    return run_as(edit.TOOL, context, {**arguments, "new_string": parameters.new_str or ""}, WORDS)


def _need(value: Any, command: str, name: str) -> Any:
    if value is None:
        raise ToolFailure(f"{NAME} was not run: the command {command} needs {name}.")
    return value


def _insert(context: ToolContext, path: str, line: int, text: str) -> Observation:
    place, file = edit.open_text(context, path)
    content = NewlineMap(file.text)
    total = count_lines(content.text)
    if line > total:
        raise ToolFailure(f"insert_line {line} is past the end: {place.shown} has {total} lines.")
    text = text.replace("\r\n", "\n").removesuffix("\n")
    at = 0
    for _ in range(line):
        at = content.text.find("\n", at) + 1 or len(content.text)
    bare = at == len(content.text) and at > 0 and not content.text.endswith("\n")
    new = replace_at(content, [at], "", f"\n{text}" if bare else f"{text}\n", file.newline)
    write_text(context, place, file, new)
    count = count_lines(text) or 1
    said = f"Edited {place.shown}: {count} {'line' if count == 1 else 'lines'} inserted."
    return Observation(said + describe_new_problems(context, place, file.text, new))


def _undo(context: ToolContext, place: Place) -> Observation:
    if not context.seen.has_version(place.real):
        raise ToolFailure(f"There is no change of {place.shown} by {NAME} that can be taken back.")
    now = _read_now(context, place)
    if now is not None:
        context.seen.refuse_if_changed(place.shown, place.real, now)
    before = context.seen.take_version(place.real)
    if before is None:
        context.sandbox.remove(place.real)
        context.seen.forget(place.real)
        return Observation(f"Took back the creation of {place.shown}: it is gone.")
    write(context.sandbox, place, before)
    context.seen.note(place.real, before)
    return Observation(f"Took back the last change of {place.shown}.")


def _read_now(context: ToolContext, place: Place) -> bytes | None:
    try:
        return context.sandbox.read_bytes(place.real)
    except OSError:
        return None


TOOL = ToolSpec(
    name=NAME,
    description=(
        "View and change files. view: a file (a small one whole and exactly as it is, of long "
        "source code an outline; lines with view_range) or the names in a directory. create: a new "
        "file, or all of an old one. str_replace: old_str, exactly as the file has it and only "
        "once there, becomes new_str. insert: new_str after a line. undo: take back the last "
        "change that was made here to the file."
    ),
    parameters=EditorParameters,
    run=run,
    kind="edit",
    only_reads=only_reads,
)
