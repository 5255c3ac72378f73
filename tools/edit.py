"""edit: replace exact text in a file; everything around it stays byte for byte."""

from __future__ import annotations

from pydantic import Field

from sandboxes.base import Sandbox
from tools.errors import ToolFailure
from tools.explain import explain_missing
from tools.paths import Place, locate, locate_file, read, refuse_git, write
from tools.replace import NewlineMap, line_number, occurrences, replace_at
from tools.schema import Parameters
from tools.textfile import TextFile, count_lines, decode, describe_binary, format_size
from tools.types import Observation, ToolContext, ToolSpec

MAX_BYTES = 10_000_000
_LINES_NAMED = 10


class EditParameters(Parameters):
    """What edit takes."""

    file_path: str = Field(description="Path of the file, relative to the repository root.")
    old_string: str = Field(
        description="The exact text to replace, with its indentation; it must occur only once."
    )
    new_string: str = Field(description="The text to put in its place.")
    replace_all: bool = Field(default=False, description="Replace every occurrence.")


def run(context: ToolContext, parameters: EditParameters) -> Observation:
    """Replace and say how often; a file that does not exist is made if old_string is empty."""
    sandbox = context.sandbox
    place = locate(sandbox, parameters.file_path)
    refuse_git(place)
    old = parameters.old_string.replace("\r\n", "\n")
    new = parameters.new_string.replace("\r\n", "\n")
    if not old and not place.host.exists():
        return _create(sandbox, place, new)
    file = _read(sandbox, parameters.file_path)
    if old == new:
        raise ToolFailure(
            "Nothing was changed: old_string and new_string are the same. "
            "Give the text as it should become in new_string."
        )
    if not old:
        if file.text:
            raise ToolFailure(
                f"Nothing was changed: old_string is empty, but {place.shown} has text. "
                "Give the text to replace, or use write_file to write the whole file."
            )
        _write(sandbox, place, file, new)
        return Observation(f"Edited {place.shown}: 1 replacement.")
    return _replace(sandbox, place, file, old, new, replace_all=parameters.replace_all)


def _read(sandbox: Sandbox, path: str) -> TextFile:
    place, status = locate_file(sandbox, path)
    if status.st_size > MAX_BYTES:
        raise ToolFailure(
            f"{place.shown} is too large to edit ({format_size(status.st_size)}): "
            "change it with run_shell_command (sed or a script)."
        )
    data = read(sandbox, place)
    file = decode(data)
    if file is None:
        raise ToolFailure(
            f"{place.shown} is a binary file ({format_size(len(data))}, {describe_binary(data)}): "
            "edit changes text files only."
        )
    return file


def _create(sandbox: Sandbox, place: Place, text: str) -> Observation:
    _write(sandbox, place, TextFile("", "utf-8", b""), text)
    lines = count_lines(text)
    return Observation(f"Created {place.shown} ({lines} {'line' if lines == 1 else 'lines'}).")


def _replace(
    sandbox: Sandbox, place: Place, file: TextFile, old: str, new: str, *, replace_all: bool
) -> Observation:
    content = NewlineMap(file.text)
    found = occurrences(content.text, old, overlapping=not replace_all)
    if not found:
        raise ToolFailure(explain_missing(place.shown, content.text, old, new))
    if len(found) > 1 and not replace_all:
        raise ToolFailure(
            f"Nothing was changed: old_string occurs {len(found)} times in {place.shown}, "
            f"at lines {_lines(content.text, found)}. Add the lines around the one you mean to "
            "old_string (and to new_string), or set replace_all to true."
        )
    _write(sandbox, place, file, replace_at(content, found, old, new, file.newline))
    plural = "replacement" if len(found) == 1 else "replacements"
    return Observation(f"Edited {place.shown}: {len(found)} {plural}.")


def _lines(text: str, found: list[int]) -> str:
    numbers = [str(line_number(text, start)) for start in found[:_LINES_NAMED]]
    if len(found) > _LINES_NAMED:
        return f"{', '.join(numbers)} and {len(found) - _LINES_NAMED} more"
    return f"{', '.join(numbers[:-1])} and {numbers[-1]}"


def _write(sandbox: Sandbox, place: Place, file: TextFile, text: str) -> None:
    try:
        data = file.encode(text)
    except UnicodeEncodeError as error:
        odd = error.object[error.start : error.end]
        raise ToolFailure(
            f"Nothing was changed: {place.shown} is encoded as {file.encoding}, which has no "
            f"{odd[:20]!r}. Use characters that the file's encoding has."
        ) from None
    write(sandbox, place, data)


TOOL = ToolSpec(
    name="edit",
    description=(
        "Replace text in a file. old_string must be exactly what the file has, whitespace and "
        "indentation included, and occur only once: take a few lines around the change to make it "
        "so, or set replace_all. With an empty old_string a new file is made."
    ),
    parameters=EditParameters,
    run=run,
    kind="edit",
)
