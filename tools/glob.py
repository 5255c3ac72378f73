"""glob: find the files whose paths match a pattern."""

from __future__ import annotations

import re
from itertools import islice

from pydantic import Field

from sandboxes.base import Sandbox
from tools.errors import ToolFailure
from tools.files.places import MAX_PATH, NOISE, locate_directory, printable, walk_files
from tools.schema import Parameters
from tools.types import Observation, ToolContext, ToolSpec

MAX_FILES = 200


class GlobParameters(Parameters):
    """The parameters of glob."""

    pattern: str = Field(description="Such as **/*.py, src/**/test_*.py or *.{js,ts}.")
    path: str = Field(
        default=".", description="Directory to search; the whole repository if not given."
    )


def run(context: ToolContext, parameters: GlobParameters) -> Observation:
    """Return the matching paths from the repository root, one a line."""
    sandbox = context.sandbox
    place = locate_directory(sandbox, parameters.path)
    pattern = _make_relative(sandbox, parameters.pattern)
    matches = compile_glob(pattern).fullmatch
    below = 0 if place.real == "." else len(place.real) + 1
    named = set(re.split(r"[/{},]", pattern))
    try:
        walk = walk_files(
            sandbox, place.real, skip=NOISE - named, ignoring=lambda name: name not in named
        )
        found = list(islice((p for p in walk if matches(p[below:])), MAX_FILES + 1))
    except OSError as error:
        raise ToolFailure(f"{place.shown} cannot be searched: {error.strerror}.") from None
    if not found:
        return Observation(f"No files match {parameters.pattern}{place.within}.")
    lines = [printable(path) for path in found[:MAX_FILES]]
    cut = len(found) > MAX_FILES
    if cut:
        lines.append(f"[the first {MAX_FILES} files; narrow the pattern or the path for the rest]")
    return Observation("\n".join(lines), truncated=cut)


def _make_relative(sandbox: Sandbox, pattern: str) -> str:
    """Return the pattern without the workspace root or ``./`` before it."""
    if len(pattern) > MAX_PATH:
        raise ToolFailure(
            f"The pattern is longer than {MAX_PATH:,} characters: give a shorter one."
        )
    pattern = pattern.strip().removeprefix(sandbox.root + "/")
    while pattern.startswith("./"):
        pattern = pattern[2:]
    if not pattern or pattern.startswith("/") or ".." in pattern.split("/"):
        raise ToolFailure(
            "The pattern must be relative and stay in the repository: such as **/*.py."
        )
    return pattern


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Compile a glob pattern to a regular expression for whole relative paths.

    ``*`` and ``?`` stay within a name, ``**`` spans directories, ``[ab]``, ``[!ab]`` and ``{a,b}``
    are choices. A pattern without a slash matches a name at any depth. What is not well-formed is
    taken literally.
    """
    if "/" not in pattern:
        pattern = f"**/{pattern}"
    elif pattern.endswith("/"):
        pattern += "**"
    literal = pattern
    # Stars in a row mean what one does, but would be tried in every combination.
    pattern = re.sub(r"\*{2,}", "**", pattern)
    pattern = re.sub(r"(?<![^/])(?:\*\*/)+", "**/", pattern)
    parts: list[str] = []
    depth = 0
    at = 0
    closes = pattern.rfind("}")
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**/", at) and (at == 0 or pattern[at - 1] == "/"):
            parts.append("(?:.*/)?")
            at += 3
            continue
        if pattern.startswith("**", at):
            parts.append(".*")
            at += 2
            continue
        end = _find_class_end(pattern, at) if char == "[" else -1
        if end > 0:
            inner = pattern[at + 1 : end]
            negated = inner[:1] in ("!", "^")
            body = re.sub(r"([\\\[\]^&~|])", r"\\\1", inner[1:] if negated else inner)
            parts.append(f"(?!/)[{'^' if negated else ''}{body}]")
            at = end
        elif char == "*":
            parts.append("[^/]*")
        elif char == "?":
            parts.append("[^/]")
        elif char == "{" and at < closes:
            parts.append("(?:")
            depth += 1
        elif char == "}" and depth:
            parts.append(")")
            depth -= 1
        elif char == "," and depth:
            parts.append("|")
        else:
            parts.append(re.escape(char))
        at += 1
    try:
        return re.compile("".join(parts) + ")" * depth, re.DOTALL)
    except re.error:
        return re.compile(re.escape(literal))


def _find_class_end(pattern: str, start: int) -> int:
    """Find where the ``[`` at ``start`` is closed, or -1."""
    first = start + 2 if pattern[start + 1 : start + 2] in ("!", "^") else start + 1
    return pattern.find("]", first + 1)


TOOL = ToolSpec(
    name="glob",
    description=(
        "Find files by a pattern of their paths: * within a name, ** across directories; a pattern "
        "without / matches names at any depth. Gives paths from the repository root. Files that "
        "git ignores are left out unless the pattern names them or their folder."
    ),
    parameters=GlobParameters,
    run=run,
    kind="read",
)
