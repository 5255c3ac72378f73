"""grep_search: find lines that match a regular expression, with ripgrep inside the sandbox.

It runs there, in the session's shell, and not on the host: the files are untrusted, and the shell
already kills what takes too long, caps the output and cannot see anything outside.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pydantic import Field

from sandboxes.base import ExecResult
from tools.errors import ToolFailure
from tools.files.places import Place, describe_missing, locate, printable
from tools.schema import Parameters
from tools.text.truncate import clean_output, cut_line
from tools.types import Observation, ToolContext, ToolSpec

MAX_MATCHES = 1000
MAX_CHARACTERS = 30_000
MAX_PATTERN = 4_096
MAX_LINE_CHARACTERS = 400
_TIMEOUT_S = 60.0
_ERROR = 2
_NOT_FOUND = 127
_CUT_BY_HEAD = 141
_UNREAD = "[some files could not be read]"
_AT = "\0"
_MAX_FILES_COUNTED = 20_000
_FILES_NAMED = 10


class GrepSearchParameters(Parameters):
    """The parameters of grep_search."""

    pattern: str = Field(min_length=1, description="Regular expression (ripgrep's syntax).")
    path: str = Field(default=".", description="File or directory to search; all if not given.")
    glob: str | None = Field(default=None, description="Only files that match, such as *.py.")
    limit: int = Field(
        default=100, ge=1, le=MAX_MATCHES, description="How many matching lines to show."
    )


def run(context: ToolContext, parameters: GrepSearchParameters) -> Observation:
    """Return matching lines by file, in path order. No match is an answer, not a failure."""
    if "\0" in parameters.pattern or "\0" in (parameters.glob or ""):
        raise ToolFailure("The pattern has a null character in it: text files have none.")
    if max(len(parameters.pattern), len(parameters.glob or "")) > MAX_PATTERN:
        raise ToolFailure(
            f"The pattern is longer than {MAX_PATTERN:,} characters: give a shorter one."
        )
    place = locate(context.sandbox, parameters.path)
    if not place.host.exists():
        raise ToolFailure(describe_missing(context.sandbox, place.shown, kind="file or directory"))
    search = _Search(context, parameters, place)
    result = search.run(head=parameters.limit + 1)
    # The programs say "error" both for a wrong pattern and for one file that cannot be read.
    unread = result.exit_code == _ERROR and (not result.output or _AT in result.output)
    if not unread and result.exit_code not in (0, 1, _CUT_BY_HEAD):
        raise ToolFailure(f"The search failed: {clean_output(result.output).strip()}")
    found = _report(search, _read_matches(result.output))
    return replace(found, text=f"{found.text}\n{_UNREAD}", truncated=True) if unread else found


@dataclass(frozen=True)
class _Match:
    """One matching line."""

    path: str
    number: str
    text: str


class _Search:
    """One question to ripgrep, or to plain grep in images that lack it."""

    def __init__(
        self, context: ToolContext, parameters: GrepSearchParameters, place: Place
    ) -> None:
        self.parameters = parameters
        self.place = place
        self._context = context
        self._grep = False

    def run(self, *, head: int, each: int | None = None, count: bool = False) -> ExecResult:
        """Return the first ``head`` lines of output: at most ``each`` matches a file, or counts.

        Raises ``ToolFailure`` if the search did not end by itself.
        """
        result = self._shell(head, each, count)
        if result.exit_code == _NOT_FOUND and not self._grep:
            self._grep = True
            result = self._shell(head, each, count)
        if result.timed_out and result.duration_s >= _TIMEOUT_S:
            raise ToolFailure(
                f"The search took more than {_TIMEOUT_S:g} s: narrow the path or glob."
            )
        if result.exit_code is None:
            raise ToolFailure("The search was stopped.")
        return result

    def _shell(self, head: int, each: int | None, count: bool) -> ExecResult:
        words = self._build_grep(count) if self._grep else self._build_ripgrep(count)
        if each is not None:
            words.append(f"--max-count={each}")
        words += ["-e", self.parameters.pattern, "--", self.place.real]
        search = " ".join(shlex.quote(word) for word in words)
        # Its exit code is the search program's own.
        command = (
            f"( cd -- {shlex.quote(self._context.sandbox.root)} || exit; command {search} "
            f'</dev/null 2>&1 | head -n {head}; exit "${{PIPESTATUS[0]}}" )'
        )
        return self._context.sandbox.second_shell().run(
            command, timeout_s=_TIMEOUT_S, stop=self._context.stop
        )

    def _build_ripgrep(self, count: bool) -> list[str]:
        options = [
            "--no-config",
            "--with-filename",
            "--null",
            "--color=never",
            "--no-messages",
            "--no-ignore-global",
            "--sort=path",
            "--hidden",
            "--glob=!.git",
        ]
        if count:
            options.append("--count")
        else:
            columns = f"--max-columns={MAX_LINE_CHARACTERS}"
            options += ["--line-number", "--no-heading", columns, "--max-columns-preview"]
        if self.parameters.glob:
            options.append(f"--glob={self.parameters.glob}")
        return ["rg", *options]

    def _build_grep(self, count: bool) -> list[str]:
        """Return the command for plain grep, whose counts include files without a match."""
        options = ["-rIHEsZ", "-c" if count else "-n", "--color=never", "--exclude-dir=.git"]
        if self.parameters.glob:
            options.append(f"--include={self.parameters.glob.rsplit('/', 1)[-1]}")
        return ["grep", *options]


def _split_records(output: str) -> Iterator[tuple[str, str]]:
    """Split output into paths and what follows each; a null character stands between them."""
    path_head = ""
    for line in output.strip("\n").split("\n"):
        path, null, rest = line.partition(_AT)
        if null:
            yield (path_head + path).removeprefix("./"), rest
            path_head = ""
        elif not line.startswith("[..."):
            path_head += line + "\n"  # a line feed in a file's name


def _read_matches(output: str) -> list[_Match]:
    found = []
    for path, rest in _split_records(output):
        number, _, text = rest.partition(":")
        if number.isdigit():
            found.append(_Match(path, number, text))
    return found


def _report(search: _Search, found: list[_Match]) -> Observation:
    parameters = search.parameters
    if not found:
        only = f" (files {parameters.glob})" if parameters.glob else ""
        return Observation(f"No matches for {parameters.pattern}{search.place.within}{only}.")
    counts: dict[str, int] = {}
    if len(found) > parameters.limit:
        counts = _count_matches(search)
        each = _share(list(counts.values()), parameters.limit)
        if each is not None:
            # A part of every file says more than all of the first.
            found = _read_matches(search.run(head=parameters.limit, each=each).output)
        found = found[: parameters.limit]
    lines, shown = _group(found)
    total = sum(counts.values()) or len(found)
    if sum(shown.values()) < total:
        lines.append(_describe_left_out(shown, counts, total))
    return Observation("\n".join(lines), truncated=sum(shown.values()) < total)


def _group(found: list[_Match]) -> tuple[list[str], Counter[str]]:
    """Group as many lines as fit by file, and count those of each file."""
    lines: list[str] = []
    shown: Counter[str] = Counter()
    used = 0
    for match in found:
        text = cut_line(clean_output(match.text), 2 * MAX_LINE_CHARACTERS)
        new = [] if match.path in shown else [printable(match.path)]
        new.append(f"{match.number}: {text}")
        used += sum(map(len, new)) + len(new)
        if used > MAX_CHARACTERS:
            break
        lines += new
        shown[match.path] += 1
    return lines, shown


def _count_matches(search: _Search) -> dict[str, int]:
    """Count the matching lines of each file."""
    output = search.run(head=_MAX_FILES_COUNTED, count=True).output
    counts = {path: rest.strip() for path, rest in _split_records(output)}
    return {path: int(n) for path, n in counts.items() if n.isdigit() and int(n)}


def _share(counts: list[int], limit: int) -> int | None:
    """Return how many lines each file may show so that all fit; None if counts are unknown."""
    if not counts:
        return None
    each = 1
    while each < limit and sum(min(count, each + 1) for count in counts) <= limit:
        each += 1
    return each


def _describe_left_out(shown: Counter[str], counts: dict[str, int], total: int) -> str:
    """Describe what is left out, file by file."""
    some = sum(shown.values())
    if not counts:
        return f"[the first {some:,} of {total:,} or more matching lines; narrow the search]"
    left = {path: count - shown[path] for path, count in counts.items() if count > shown[path]}
    named = sorted(left, key=lambda path: (-left[path], path))[:_FILES_NAMED]
    parts = [f"{printable(path)} ({left[path]:,})" for path in named]
    if more := len(left) - len(named):
        parts.append(f"{more:,} more {'file' if more == 1 else 'files'}")
    return (
        f"[{some:,} of {total:,} matching lines in {len(counts):,} "
        f"{'file' if len(counts) == 1 else 'files'}; left out: {', '.join(parts)}; narrow the "
        "search or raise the limit]"
    )


TOOL = ToolSpec(
    name="grep_search",
    description=(
        "Search file contents with a regular expression (ripgrep). Gives the matching lines with "
        "their numbers under each file. "
        "Files that git ignores are left out. To search for text with special characters such as "
        "( or [ put a backslash before them."
    ),
    parameters=GrepSearchParameters,
    run=run,
    kind="read",
)
