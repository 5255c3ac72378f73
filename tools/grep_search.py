"""grep_search: lines that match a regular expression, found by ripgrep inside the sandbox.

It runs there, in the session's shell, and not on the host: the files are untrusted, and the shell
already kills what takes too long, caps the output and cannot see anything outside.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

from pydantic import Field

from sandboxes.base import ExecResult
from tools.errors import ToolFailure
from tools.paths import Place, locate, missing
from tools.schema import Parameters
from tools.truncate import clean_output, cut_line
from tools.types import Observation, ToolContext, ToolSpec

MAX_MATCHES = 1000
MAX_CHARACTERS = 30_000
MAX_LINE_CHARACTERS = 400
_TIMEOUT_S = 60.0
_ERROR = 2
_NOT_FOUND = 127
_CUT_BY_HEAD = 141
_UNREAD = "[some files could not be read]"
_MATCH = re.compile(r"(?!rg: |grep: |error parsing )[^\n]+?:\d+:")


class GrepSearchParameters(Parameters):
    """What grep_search takes."""

    pattern: str = Field(min_length=1, description="Regular expression (ripgrep's syntax).")
    path: str = Field(default=".", description="File or directory to search; all if not given.")
    glob: str | None = Field(default=None, description="Only files that match, such as *.py.")
    limit: int = Field(
        default=100, ge=1, le=MAX_MATCHES, description="How many matching lines to show."
    )


def run(context: ToolContext, parameters: GrepSearchParameters) -> Observation:
    """Lines ``path:line:text`` in path order. No match is an answer, not a failure."""
    if "\0" in parameters.pattern or "\0" in (parameters.glob or ""):
        raise ToolFailure("The pattern has a null character in it: text files have none.")
    place = locate(context.sandbox, parameters.path)
    if not place.host.exists():
        raise ToolFailure(missing(context.sandbox, place.shown, kind="file or directory"))
    result = _shell(context, _ripgrep(context, parameters, place))
    if result.exit_code == _NOT_FOUND:
        result = _shell(context, _grep(context, parameters, place))
    if result.timed_out and result.duration_s >= _TIMEOUT_S:
        raise ToolFailure(f"The search took more than {_TIMEOUT_S:g} s: narrow the path or glob.")
    if result.exit_code is None:
        raise ToolFailure("The search was stopped.")
    # The programs say "error" both for a wrong pattern and for one file that cannot be read.
    unread = result.exit_code == _ERROR and (not result.output or _MATCH.match(result.output))
    if not unread and result.exit_code not in (0, 1, _CUT_BY_HEAD):
        raise ToolFailure(f"The search failed: {clean_output(result.output).strip()}")
    found = _report(result, parameters, place)
    return replace(found, text=f"{found.text}\n{_UNREAD}", truncated=True) if unread else found


def _shell(context: ToolContext, command: str) -> ExecResult:
    return context.sandbox.second_shell().run(
        command, timeout_s=_TIMEOUT_S, should_stop=context.should_stop
    )


def _ripgrep(context: ToolContext, parameters: GrepSearchParameters, place: Place) -> str:
    options = [
        "--no-config",
        "--line-number",
        "--with-filename",
        "--no-heading",
        "--color=never",
        "--no-messages",
        "--no-ignore-global",
        "--sort=path",
        "--hidden",
        "--glob=!.git",
        f"--max-columns={MAX_LINE_CHARACTERS}",
        "--max-columns-preview",
    ]
    if parameters.glob:
        options.append(f"--glob={parameters.glob}")
    return _pipeline(context, ["rg", *options], parameters, place)


def _grep(context: ToolContext, parameters: GrepSearchParameters, place: Place) -> str:
    """The same search with plain grep, for images that lack ripgrep."""
    options = ["-rnIHEs", "--color=never", "--exclude-dir=.git"]
    if parameters.glob:
        options.append(f"--include={parameters.glob.rsplit('/', 1)[-1]}")
    return _pipeline(context, ["grep", *options], parameters, place)


def _pipeline(
    context: ToolContext, program: list[str], parameters: GrepSearchParameters, place: Place
) -> str:
    """One shell command; its exit code is the search program's own."""
    words = [*program, "-e", parameters.pattern, "--", place.real]
    search = " ".join(shlex.quote(word) for word in words)
    return (
        f"( cd -- {shlex.quote(context.sandbox.root)} || exit; command {search} </dev/null 2>&1 "
        f'| head -n {parameters.limit + 1}; exit "${{PIPESTATUS[0]}}" )'
    )


def _report(result: ExecResult, parameters: GrepSearchParameters, place: Place) -> Observation:
    found = clean_output(result.output).strip("\n").split("\n")
    if found == [""]:
        only = f" (files {parameters.glob})" if parameters.glob else ""
        return Observation(f"No matches for {parameters.pattern}{place.within}{only}.")
    lines: list[str] = []
    used = 0
    for line in found[: parameters.limit]:
        shown = cut_line(line.removeprefix("./"), 2 * MAX_LINE_CHARACTERS)
        used += len(shown) + 1
        if used > MAX_CHARACTERS:
            break
        lines.append(shown)
    cut = len(lines) < len(found)
    if cut:
        lines.append(f"[the first {len(lines)} matches; narrow the search for the rest]")
    return Observation("\n".join(lines), truncated=cut)


TOOL = ToolSpec(
    name="grep_search",
    description=(
        "Search file contents with a regular expression (ripgrep). Gives lines path:line:text. "
        "Files that git ignores are left out. To search for text with special characters such as "
        "( or [ put a backslash before them."
    ),
    parameters=GrepSearchParameters,
    run=run,
    kind="read",
)
