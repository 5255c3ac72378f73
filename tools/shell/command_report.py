"""Report a command to the model: its output, cleaned and cut, and how it ended."""

from __future__ import annotations

from sandboxes.base import ExecResult
from tools.shell.test_output import fold
from tools.text.truncate import clean_output, cut_middle
from tools.types import Observation

MAX_CHARACTERS = 30_000
_DURATION_SHOWN_FROM_S = 10.0
_BINARY_FROM = 200
_BINARY_SHARE = 0.3


def observe(result: ExecResult, root: str, timeout_s: float) -> Observation:
    """Report a command that ended. ``ok`` means that it exited with code 0."""
    body, cut = show_output(result)
    ending = f"[{_describe_ending(result, root, timeout_s)}]"
    text = f"{body}\n{ending}" if body else ending
    return Observation(text, ok=result.exit_code == 0, truncated=cut)


def show_output(result: ExecResult) -> tuple[str, bool]:
    """Return the output as the model reads it, and whether a part is left out."""
    text = clean_output(result.output)
    where = f"; all of it is in {result.saved}" if result.saved else ""
    if result.saved and result.saved_lost:
        where = f"; its first {64:d} MB are in {result.saved}"
    if _is_binary(text):
        size = len(text) + result.dropped_bytes
        return f"[binary output, about {size:,} bytes, not shown{where}]", True
    if len(text) <= MAX_CHARACTERS:
        return text.rstrip("\n"), result.dropped_bytes > 0
    folded = fold(text, MAX_CHARACTERS)
    if folded is not None:
        total = len(text) + result.dropped_bytes
        note = f"[... cut from {total:,} characters{where} ...]"
        return f"{folded}\n{note}", True
    output, cut = cut_middle(text, MAX_CHARACTERS, already_dropped=result.dropped_bytes)
    if where:
        output = output.replace(" characters left out ...]", f" characters left out{where} ...]", 1)
    return output.rstrip("\n"), cut


def _is_binary(text: str) -> bool:
    return len(text) > _BINARY_FROM and text.count("\ufffd") > _BINARY_SHARE * len(text)


def _describe_ending(result: ExecResult, root: str, timeout_s: float) -> str:
    if result.running:
        return (
            f"still running after {result.duration_s:.0f} s: wait for it with "
            "shell_process (action read), or interrupt or stop it there"
        )
    if result.timed_out and result.duration_s >= timeout_s:
        return f"timed out after {timeout_s:g} s; its processes were killed"
    if result.shell_died:
        cause = f"{result.cause}; " if result.cause else "the shell ended; "
        return f"{cause}a new one starts in {root}, without the variables set before"
    if result.exit_code is None:
        return "stopped; its processes were killed"
    if result.duration_s >= _DURATION_SHOWN_FROM_S:
        return f"exit code {result.exit_code}, took {result.duration_s:.0f} s"
    return f"exit code {result.exit_code}"
