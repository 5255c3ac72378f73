"""list_directory: list one directory."""

from __future__ import annotations

import os
import stat

from pydantic import Field

from sandboxes.workspace.safe_folders import Folders
from tools.errors import ToolFailure
from tools.files.places import as_prefix, locate_directory, printable
from tools.schema import Parameters
from tools.text.text_file import format_size
from tools.types import Observation, ToolContext, ToolSpec

MAX_ENTRIES = 500
_SIZE_SHOWN_FROM_BYTES = 1_000_000


class ListDirectoryParameters(Parameters):
    """The parameters of list_directory."""

    path: str = Field(
        default=".", description="Path of the directory, relative to the repository root."
    )


def run(context: ToolContext, parameters: ListDirectoryParameters) -> Observation:
    """Return one name a line, directories first and with a final slash; ``.git`` is left out."""
    place = locate_directory(context.sandbox, parameters.path)
    try:
        with Folders(context.sandbox.resolve(".")) as folders:
            directory = folders.enter(as_prefix(place.real))
            names = os.listdir(directory)  # noqa: PTH208 (a descriptor, not a path)
            entries = sorted(_describe_entry(name, directory) for name in names if name != ".git")
    except OSError as error:
        raise ToolFailure(f"{place.shown} cannot be listed: {error.strerror}.") from None
    if not entries:
        return Observation("[empty directory]")
    lines = [line for _, line in entries[:MAX_ENTRIES]]
    cut = len(entries) > MAX_ENTRIES
    if cut:
        lines.append(f"[{MAX_ENTRIES} of {len(entries):,} entries shown; use glob to narrow down]")
    return Observation("\n".join(lines), truncated=cut)


def _describe_entry(name: str, directory: int) -> tuple[bool, str]:
    """Return the sort key (directories before files) and the line for one entry."""
    shown = printable(name)
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            target = printable(os.readlink(name, dir_fd=directory))
            return True, f"{shown} -> {target}"
    except OSError:
        return True, shown
    if stat.S_ISDIR(status.st_mode):
        return False, f"{shown}/"
    if status.st_size >= _SIZE_SHOWN_FROM_BYTES:
        return True, f"{shown} ({format_size(status.st_size)})"
    return True, shown


TOOL = ToolSpec(
    name="list_directory",
    description="List the files and directories (with a final /) in one directory.",
    parameters=ListDirectoryParameters,
    run=run,
    kind="read",
)
