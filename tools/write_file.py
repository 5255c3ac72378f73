"""write_file: write a whole file, new or in place of the old one."""

from __future__ import annotations

from pydantic import Field

from tools.edits.saving import describe_new_problems
from tools.files.places import Place, locate, refuse_git, write
from tools.schema import Parameters
from tools.text.text_file import TextFile, count_lines, decode
from tools.types import Observation, ToolContext, ToolSpec

_MAX_OLD_BYTES = 10_000_000
_PLAIN = TextFile("", "utf-8", b"")


class WriteFileParameters(Parameters):
    """The parameters of write_file."""

    file_path: str = Field(description="Path of the file, relative to the repository root.")
    content: str = Field(description="The whole new content.")


def run(context: ToolContext, parameters: WriteFileParameters) -> Observation:
    """Write it. An existing text file keeps its encoding and, if all its lines have it, CRLF."""
    place = locate(context.sandbox, parameters.file_path)
    refuse_git(place)
    text = parameters.content
    old, before = _read_old(context, place)
    if old.text.count("\n") == old.text.count("\r\n") > 0:
        text = text.replace("\r\n", "\n").replace("\n", "\r\n")
    note = ""
    try:
        data = old.encode(text)
    except UnicodeEncodeError as error:
        data = _PLAIN.encode(text.encode("utf-8", "replace").decode("utf-8"))
        if old.encoding != _PLAIN.encoding:
            odd = error.object[error.start : error.start + 1]
            note = f" It was encoded as {old.encoding}, which has no {odd!r}, and is UTF-8 now."
    write(context.sandbox, place, data)
    context.seen.note(place.real, data)
    lines = count_lines(text)
    said = f"Wrote {place.shown} ({lines} {'line' if lines == 1 else 'lines'})."
    problems = describe_new_problems(context, place, before, text)
    return Observation(said + note + problems)


def _read_old(context: ToolContext, place: Place) -> tuple[TextFile, str]:
    """Return the form of the file (plain UTF-8 unless it is a text file), and its text.

    Raises ``ToolFailure`` if it is not what the model last saw.
    """
    try:
        if not place.host.is_file() or place.host.stat().st_size > _MAX_OLD_BYTES:
            return _PLAIN, ""
        data = context.sandbox.read_bytes(place.real)
    except OSError:
        return _PLAIN, ""
    context.seen.refuse_if_changed(place.shown, place.real, data)
    file = decode(data)
    return (file, file.text) if file is not None else (_PLAIN, "")


TOOL = ToolSpec(
    name="write_file",
    description=(
        "Write a whole file: make a new one (with its folders) or replace all of an old one. "
        "To change a part of a file use edit."
    ),
    parameters=WriteFileParameters,
    run=run,
    kind="edit",
)
