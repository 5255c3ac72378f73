"""Text that a person is shown: made safe if it is from outside, errors explained on one line."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

from agent.errors import AgentError
from model.errors import ModelError, ModelNotFound
from sandboxes.errors import NotARepository, SandboxError

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

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Return ``text`` with control characters shown, so that nothing in it can steer a terminal.

    Newlines and tabs stay. Escape becomes U+241B and so on; characters that reorder text, and
    bytes that were no UTF-8, become U+FFFD.
    """
    return _CONTROL.sub(_picture, text)


def fenced(text: str) -> str:
    """Return ``text`` in a code fence that is longer than any run of backticks in it."""
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def one_line(error: BaseException) -> str:
    """Return the error's message on one line, control characters made visible."""
    text = " ".join(str(error).split()) or type(error).__name__
    return visible(text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"


@dataclass(frozen=True)
class Failure:
    """One line for the user, and the exit code."""

    message: str
    exit_code: int


def explain(error: BaseException) -> Failure:
    """Return what the user is told of ``error``, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted", EXIT_INTERRUPTED)
    if isinstance(error, AgentError):
        return Failure(one_line(error), error.exit_code)
    if isinstance(error, ModelNotFound | NotARepository):
        return Failure(one_line(error), EXIT_USAGE)
    if isinstance(error, ModelError | SandboxError):
        return Failure(one_line(error), EXIT_ERROR)
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return Failure("out of memory; close other programs or use a smaller model", EXIT_ERROR)
    if isinstance(error, OSError):
        return Failure(one_line(error) + _REMEDIES.get(error.errno or 0, ""), EXIT_ERROR)
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return Failure(NO_HOME, EXIT_USAGE)
    text = f"internal error: {type(error).__name__}: {one_line(error)}"
    return Failure(f"{text}; set {DEBUG}=1 to see where", EXIT_ERROR)


def _is_out_of_memory(error: BaseException) -> bool:
    # torch raises a plain RuntimeError when the CPU allocator fails, and its own class on a GPU.
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "out of memory" in text
    )
