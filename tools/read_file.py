"""read_file: read a text file, or a range of its lines."""

from __future__ import annotations

from pydantic import Field

from sandboxes.base import Sandbox
from tools.errors import ToolFailure
from tools.files.places import Place, locate_file, read
from tools.index.render import format_outline
from tools.schema import Parameters
from tools.text.text_file import (
    count_lines,
    decode,
    describe_binary,
    format_size,
    is_binary,
    is_picture,
)
from tools.text.truncate import cut_line
from tools.types import FoundPicture, Observation, ToolContext, ToolSpec

MAX_LINES = 2000
WHOLE_LINES = 1000
MAX_CHARACTERS = 40_000
MAX_LINE_CHARACTERS = 2000
MAX_BYTES = 10_000_000
MAX_OUTLINE_CHARACTERS = 12_000
MIN_OUTLINE_LINES = 3
_SNIFFED_BYTES = 8192


class ReadFileParameters(Parameters):
    """The parameters of read_file. Line numbers start at 1; 0 is taken as 1."""

    file_path: str = Field(description="Path of the file, relative to the repository root.")
    offset: int = Field(default=1, ge=0, description="First line to read, counted from 1.")
    limit: int | None = Field(default=None, ge=1, description="How many lines to read.")


def run(context: ToolContext, parameters: ReadFileParameters) -> Observation:
    """Return the text with CRLF as LF, without the byte-order mark and one final newline."""
    sandbox = context.sandbox
    place, status = locate_file(sandbox, parameters.file_path)
    head = read(sandbox, place, max_bytes=_SNIFFED_BYTES)
    if is_binary(head):
        return _describe(status.st_size, head, _pictures(sandbox, place, status.st_size, head))
    if status.st_size > MAX_BYTES:
        raise ToolFailure(
            f"{place.shown} is too large to read ({format_size(status.st_size)}): "
            "look at parts of it with run_shell_command (head, tail, sed -n, grep)."
        )
    data = read(sandbox, place, max_bytes=MAX_BYTES)
    context.seen.note(place.real, data)
    file = decode(data)
    if file is None:
        return _describe(len(data), head)
    text = file.text.replace("\r\n", "\n")
    if not text:
        return Observation("[empty file]")
    if not {"offset", "limit"} & parameters.model_fields_set and _is_long(text):
        outline = _make_outline(context, place, text)
        if outline is not None:
            return outline
    return _show_range(place.shown, text, max(parameters.offset, 1), parameters.limit)


def _is_long(text: str) -> bool:
    return len(text) > MAX_CHARACTERS or count_lines(text) > WHOLE_LINES


def _make_outline(context: ToolContext, place: Place, text: str) -> Observation | None:
    """Return the definitions of a long source file instead of its text; None if it has few."""
    definitions = context.code.outline(place.real, text)
    lines = format_outline(definitions)
    if len("\n".join(lines)) > MAX_OUTLINE_CHARACTERS:
        lines = format_outline([item for item in definitions if item.depth == 0])
    if len(lines) < MIN_OUTLINE_LINES:
        return None
    fitting = _take_fitting(lines, MAX_OUTLINE_CHARACTERS)
    left = len(lines) - len(fitting)
    if left:
        fitting.append(f"[{left:,} more definitions; find_symbol finds them by name]")
    header = (
        f"[{place.shown} has {count_lines(text):,} lines. This is its outline, with the first and "
        "last line of each definition; read the lines you need with offset and limit.]"
    )
    return Observation("\n".join([header, *fitting]), truncated=True)


def _describe(size: int, head: bytes, pictures: tuple[FoundPicture, ...] = ()) -> Observation:
    text = f"[binary file: {format_size(size)}, {describe_binary(head)}]"
    return Observation(text, pictures=pictures)


def _pictures(sandbox: Sandbox, place: Place, size: int, head: bytes) -> tuple[FoundPicture, ...]:
    """Return the file as a picture, if it is one that a model can see."""
    if size > MAX_BYTES or not is_picture(head):
        return ()
    return (FoundPicture(place.shown, read(sandbox, place, max_bytes=MAX_BYTES)),)


def _show_range(shown: str, text: str, first: int, limit: int | None) -> Observation:
    total = count_lines(text)
    if first > total:
        raise ToolFailure(f"offset {first} is past the end: {shown} has {total} lines.")
    lines = text.removesuffix("\n").split("\n")[first - 1 :]
    wanted = lines[: MAX_LINES if limit is None else limit]
    body = "\n".join(wanted)
    if len(body) > MAX_CHARACTERS:
        wanted = _take_fitting(
            [cut_line(line, MAX_LINE_CHARACTERS) for line in wanted], MAX_CHARACTERS
        )
        body = "\n".join(wanted)
    last = first + len(wanted) - 1
    if first == 1 and last == total:
        whole = body == text.removesuffix("\n")
        return Observation(body or "[1 empty line]", truncated=not whole)
    more = "; use offset and limit for more" if last < total else ""
    header = f"[lines {first}-{last} of {total}{more}]"
    return Observation(f"{header}\n{body}", truncated=True)


def _take_fitting(lines: list[str], limit: int) -> list[str]:
    """Return the first lines that fit ``limit`` characters together, at least one."""
    used = 0
    for count, line in enumerate(lines):
        used += len(line) + 1
        if used > limit and count:
            return lines[:count]
    return lines


TOOL = ToolSpec(
    name="read_file",
    description=(
        "Read a text file of the repository. A small file comes whole and exactly as it is, "
        "without line numbers. Of long source code an outline comes: its definitions with their "
        "lines; of other long files the first lines, after a header [lines A-B of N]. Use offset "
        "(counted from 1) and limit for the lines you need."
    ),
    parameters=ReadFileParameters,
    run=run,
    kind="read",
)
