"""Turns whatever stopped a command into one line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import traceback
from dataclasses import dataclass

from agent.cli.output import write_err
from agent.errors import AgentError
from agent.text import one_line
from model.errors import ModelError
from sandboxes.errors import SandboxError

DEBUG = "TENUTO_DEBUG"
_REMEDIES = {
    errno.ENOSPC: "; free some space there",
    errno.EDQUOT: "; free some space there",
    errno.EROFS: "; make it writable, or set XDG_STATE_HOME to a place that is",
}
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
NO_HOME = (
    "HOME is not set and this user has no home folder; set HOME, or XDG_CONFIG_HOME, "
    "XDG_STATE_HOME and XDG_CACHE_HOME"
)


@dataclass(frozen=True)
class Failure:
    """What the user is told, and the exit code."""

    message: str
    exit_code: int


def explain(error: BaseException) -> Failure:
    """What ``error`` means for the user."""
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted", EXIT_INTERRUPTED)
    if isinstance(error, AgentError):
        return Failure(one_line(error), error.exit_code)
    if isinstance(error, ModelError | SandboxError):
        return Failure(one_line(error), EXIT_ERROR)
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return Failure("out of memory; close other programs or use a smaller model", EXIT_ERROR)
    if isinstance(error, OSError):
        return Failure(one_line(error) + _REMEDIES.get(error.errno or 0, ""), EXIT_ERROR)
    if isinstance(error, RuntimeError) and "determine home directory" in str(error):
        return Failure(NO_HOME, EXIT_USAGE)
    text = f"internal error: {type(error).__name__}: {one_line(error)}"
    return Failure(f"{text}; set {DEBUG}=1 to see where", EXIT_ERROR)


def tell(error: BaseException) -> Failure:
    """Write the line to stderr (and, if ``TENUTO_DEBUG`` is set, where it happened first)."""
    failure = explain(error)
    if os.environ.get(DEBUG, "") not in ("", "0"):
        write_err("".join(traceback.format_exception(error)))
    prefix = "" if failure.exit_code == EXIT_INTERRUPTED else "error: "
    write_err(f"{prefix}{failure.message}\n")
    return failure


def _is_out_of_memory(error: BaseException) -> bool:
    # torch raises a plain RuntimeError when the CPU allocator fails, and its own class on a GPU.
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "out of memory" in text
    )
