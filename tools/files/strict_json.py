"""Check JSON files strictly: the grammar of the index lets line feeds stand in strings."""

from __future__ import annotations

import json

from tools.index.languages import JSON_LINES_SUFFIXES, JSON_SUFFIXES
from tools.index.tags import SyntaxProblem

_MAX_CHARACTERS = 5_000_000


def find_json_problem(path: str, before: str, after: str) -> list[SyntaxProblem]:
    """Return where ``after`` is no JSON if ``before`` was; none for other files than JSON."""
    suffix = path.rpartition(".")[2].lower()
    if suffix not in (*JSON_SUFFIXES, *JSON_LINES_SUFFIXES) or len(after) > _MAX_CHARACTERS:
        return []
    by_line = suffix in JSON_LINES_SUFFIXES
    try:
        found = _find_problem(after, by_line=by_line)
        if found is None or _find_problem(before, by_line=by_line) is not None:
            return []
    except RecursionError:
        return []
    return [found]


def _find_problem(text: str, *, by_line: bool) -> SyntaxProblem | None:
    """Return the first place that is no JSON; ``by_line``: each line is a text of its own."""
    # Line feeds alone end a line: U+2028 and its like may stand in a string.
    texts = enumerate(text.split("\n")) if by_line else [(0, text)]
    for skipped, part in texts:
        if by_line and not part.strip():
            continue
        try:
            # Numbers stay text, since long ones are refused or take long.
            json.loads(part, parse_int=str, parse_float=str)
        except json.JSONDecodeError as error:
            return SyntaxProblem(skipped + error.lineno, error.colno, "")
    return None
