"""find_references: find where a name is used, by its spelling; the index knows no types."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from tools.errors import ToolFailure
from tools.files.places import printable
from tools.find_symbol import find, find_nearest_names, split_name
from tools.index.repository_index import RepositoryIndex
from tools.schema import Parameters
from tools.text.truncate import cut_line
from tools.types import Observation, ToolContext, ToolSpec

MAX_LINES = 100
MAX_LINES_A_FILE = 20
MAX_LINE_CHARACTERS = 200
_FILES_NAMED = 20
_DEFINITIONS = 5


class FindReferencesParameters(Parameters):
    """The parameters of find_references."""

    name: str = Field(min_length=1, max_length=400, description="The name, such as total.")


def run(context: ToolContext, parameters: FindReferencesParameters) -> Observation:
    """Return the lines that mention the name in code, by file, the most mentions first."""
    name, owner = split_name(parameters.name)
    if not name:
        raise ToolFailure("The name is empty: give the name of a class, function or constant.")
    index = context.code.index(context.sandbox, context.stop)
    places = _find_places(index, name)
    defined = find(index, name, owner)
    if not places:
        return Observation(_say_nothing(index, name, defined=bool(defined)))
    total = sum(len(lines) for _, lines in places)
    header = (
        f"{total:,} {'line' if total == 1 else 'lines'} in {len(places):,} "
        f"{'file' if len(places) == 1 else 'files'} mention {name} (by spelling; other things "
        "of the same name are among them; comments and strings are not)."
    )
    lines = [header]
    lines += [f"defined: {item.line()}" for item in defined[:_DEFINITIONS]]
    left: list[str] = []
    shown = 0
    for path, numbers in places:
        room = min(MAX_LINES_A_FILE, MAX_LINES - shown)
        if room <= 0:
            left.append(f"{printable(path)} ({len(numbers)})")
            continue
        lines += _show_lines(index, path, numbers, room)
        shown += min(room, len(numbers))
    if left:
        more = f" and {len(left) - _FILES_NAMED:,} more files" if len(left) > _FILES_NAMED else ""
        lines.append(f"[left out: {', '.join(left[:_FILES_NAMED])}{more}]")
    return Observation("\n".join(lines), truncated=shown < total)


def _find_places(index: RepositoryIndex, name: str) -> list[tuple[str, list[int]]]:
    number = index.name_id(name)
    if number is None:
        return []
    tables = index.tables
    files = np.unique(tables.mentioned_in[tables.mentioned_name == number])
    found = [(tables.files[file], index.lines_with(tables.files[file], name)) for file in files]
    return sorted(((p, n) for p, n in found if n), key=lambda item: (-len(item[1]), item[0]))


def _show_lines(index: RepositoryIndex, path: str, numbers: list[int], room: int) -> list[str]:
    text = index.text_lines(path)
    lines = [printable(path)]
    for number in numbers[:room]:
        line = text[number - 1].strip() if number <= len(text) else ""
        lines.append(f"{number:>5}: {cut_line(line, MAX_LINE_CHARACTERS)}")
    if len(numbers) > room:
        lines.append(f"       [{len(numbers) - room:,} more lines in this file]")
    return lines


def _say_nothing(index: RepositoryIndex, name: str, *, defined: bool) -> str:
    if defined:
        return f"{name} is defined, but no code in the index mentions it; see find_symbol."
    near = find_nearest_names(index, name)
    hint = f" Nearest defined names: {', '.join(near)}." if near else ""
    return f"No code in the index mentions {name}.{hint} grep_search finds other text."


TOOL = ToolSpec(
    name="find_references",
    description=(
        "Find the lines of code that use a name. The search is by spelling (no types are "
        "resolved), so other things of the same name are included; comments and strings are not."
    ),
    parameters=FindReferencesParameters,
    run=run,
    kind="read",
)
