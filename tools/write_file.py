"""write_file: a whole file, new or in place of the old one."""

from __future__ import annotations

from pydantic import Field

from sandboxes.base import Sandbox
from tools.paths import Place, locate, refuse_git, write
from tools.schema import Parameters
from tools.textfile import TextFile, count_lines, decode
from tools.types import Observation, ToolContext, ToolSpec

_MAX_OLD_BYTES = 10_000_000
_PLAIN = TextFile("", "utf-8", b"")


class WriteFileParameters(Parameters):
    """What write_file takes."""

    file_path: str = Field(description="Path of the file, relative to the repository root.")
    content: str = Field(description="The whole new content.")


def run(context: ToolContext, parameters: WriteFileParameters) -> Observation:
    """Write it. An existing text file keeps its encoding and, if all its lines have it, CRLF."""
    place = locate(context.sandbox, parameters.file_path)
    refuse_git(place)
    text = parameters.content
    old = _old(context.sandbox, place)
    if old.text.count("\n") == old.text.count("\r\n") > 0:
        text = text.replace("\r\n", "\n").replace("\n", "\r\n")
    try:
        data = old.encode(text)
    except UnicodeEncodeError:
        data = _PLAIN.encode(text.encode("utf-8", "replace").decode("utf-8"))
    write(context.sandbox, place, data)
    lines = count_lines(text)
    return Observation(f"Wrote {place.shown} ({lines} {'line' if lines == 1 else 'lines'}).")


def _old(sandbox: Sandbox, place: Place) -> TextFile:
    """The file that is there, if it is a text file; else a plain UTF-8 one."""
    try:
        if not place.host.is_file() or place.host.stat().st_size > _MAX_OLD_BYTES:
            return _PLAIN
        return decode(sandbox.read_bytes(place.real)) or _PLAIN
    except OSError:
        return _PLAIN


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
