"""edit: replace exact text in a file; everything around it stays byte for byte."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from tools.edits.saving import describe_new_problems, write_text
from tools.errors import ToolFailure
from tools.files.places import Place, locate, locate_file, read, refuse_git
from tools.schema import Parameters
from tools.text.explain import explain_missing
from tools.text.lookalikes import find_lookalike, make_plain, replace_lookalike
from tools.text.replace import NewlineMap, find_occurrences, line_number, replace_at
from tools.text.text_file import MARK, TextFile, count_lines, decode, describe_binary, format_size
from tools.types import Observation, ToolContext, ToolSpec

MAX_BYTES = 10_000_000
_LINES_NAMED = 100


class EditParameters(Parameters):
    """The parameters of edit."""

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
        return _create(context, place, new)
    place, file = open_text(context, parameters.file_path)
    if file.bom or old not in file.text:
        # The mark is no part of the text, but programs that print a file show it to the model.
        old, new = old.removeprefix(MARK), new.removeprefix(MARK)
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
        return _save(context, place, file, new, 1)
    return _replace(context, place, file, old, new, replace_all=parameters.replace_all)


def open_text(context: ToolContext, path: str) -> tuple[Place, TextFile]:
    """Read a text file that is to be changed. Raises ``ToolFailure`` if it cannot be."""
    place, status = locate_file(context.sandbox, path)
    if status.st_size > MAX_BYTES:
        raise ToolFailure(
            f"{place.shown} is too large to edit ({format_size(status.st_size)}): "
            "change it with run_shell_command (sed or a script)."
        )
    data = read(context.sandbox, place)
    context.seen.refuse_if_changed(place.shown, place.real, data)
    file = decode(data)
    if file is None:
        raise ToolFailure(
            f"{place.shown} is a binary file ({format_size(len(data))}, {describe_binary(data)}): "
            "edit changes text files only."
        )
    return place, file


def _create(context: ToolContext, place: Place, text: str) -> Observation:
    write_text(context, place, TextFile("", "utf-8", b""), text)
    lines = count_lines(text)
    said = f"Created {place.shown} ({lines} {'line' if lines == 1 else 'lines'})."
    return Observation(said + describe_new_problems(context, place, "", text))


def _replace(
    context: ToolContext, place: Place, file: TextFile, old: str, new: str, *, replace_all: bool
) -> Observation:
    content = NewlineMap(file.text)
    found = find_occurrences(content.text, old, overlapping=not replace_all)
    if not found:
        return _replace_lookalike(context, place, file, content, old, new)
    if len(found) > 1 and not replace_all:
        raise ToolFailure(
            f"Nothing was changed: old_string occurs {len(found)} times in {place.shown}, "
            f"at lines {_list_lines(content.text, found)}. Add the lines around the one you mean "
            "to old_string (and to new_string), or set replace_all to true."
        )
    text = replace_at(content, found, old, new, file.newline)
    return _save(context, place, file, text, len(found))


def _replace_lookalike(
    context: ToolContext, place: Place, file: TextFile, content: NewlineMap, old: str, new: str
) -> Observation:
    """Replace the only place that looks like ``old``. Raises ``ToolFailure`` if there is none."""
    match = find_lookalike(content.text, old) if make_plain(old) != make_plain(new) else None
    if match is None or (new.strip() and new in content.text):
        raise ToolFailure(explain_missing(place.shown, content.text, old, new))
    part = content.text[match.start : match.end]
    made = replace_lookalike(part, old, new)
    text = replace_at(content, [match.start], part, made, file.newline)
    seen = _save(context, place, file, text, 1)
    said, *problems = seen.text.split("\n", 1)
    note = f"{said} It was matched by characters that look alike: {match.differences}."
    return replace(seen, text="\n".join([note, *problems]))


def _save(context: ToolContext, place: Place, file: TextFile, text: str, count: int) -> Observation:
    """Write ``text`` and say how many replacements that were."""
    write_text(context, place, file, text)
    plural = "replacement" if count == 1 else "replacements"
    said = f"Edited {place.shown}: {count} {plural}."
    return Observation(said + describe_new_problems(context, place, file.text, text))


def _list_lines(text: str, found: list[int]) -> str:
    numbers = [str(line_number(text, start)) for start in found[:_LINES_NAMED]]
    if len(found) > _LINES_NAMED:
        return f"{', '.join(numbers)} and {len(found) - _LINES_NAMED} more"
    return f"{', '.join(numbers[:-1])} and {numbers[-1]}"


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
