"""Keep what the model reads short and clean: cut long text, strip what only a terminal needs."""

from __future__ import annotations

import re

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # OSC and other strings: titles, links
    r"|\x1b[ -/]*[0-~]"  # two-character sequences
    r"|\x1b",
    re.MULTILINE,
)
_OVERSTRIKE = re.compile(r"[^\n\x08]\x08")
_DROPPED = re.compile(r"[\x07\x08]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")


def clean_output(text: str) -> str:
    """Turn terminal output into plain text.

    Escape sequences and bells go, overstruck characters go, of a line rewritten with carriage
    returns (a progress bar) the last writing stays, and other control characters become U+FFFD.
    """
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    if "\r" in text:
        text = "\n".join(_keep_last_writing(line) for line in text.split("\n"))
    if "\b" in text:
        text = _OVERSTRIKE.sub("", text)
    text = _DROPPED.sub("", text)
    return _CONTROLS.sub("\ufffd", text)


def _keep_last_writing(line: str) -> str:
    if "\r" not in line:
        return line
    return line.rstrip("\r").rsplit("\r", 1)[-1]


def cut_middle(text: str, limit: int, *, already_dropped: int = 0) -> tuple[str, bool]:
    """Leave out the middle of ``text`` if it is longer than ``limit`` characters.

    Cuts at line ends where it can and says how much is missing. ``already_dropped`` is what
    somebody before us left out of the middle, in bytes, with a note there. Returns the text and
    whether anything is missing.
    """
    if len(text) <= limit:
        return text, already_dropped > 0
    half = limit // 2
    head, tail = text[:half], text[len(text) - half :]
    if (end := head.rfind("\n")) > half // 2:
        head = head[: end + 1]
    if 0 <= (start := tail.find("\n")) < half // 2:
        tail = tail[start + 1 :]
    dropped = len(text) - len(head) - len(tail) + already_dropped
    separator = "" if head.endswith("\n") else "\n"
    return f"{head}{separator}[... {dropped:,} characters left out ...]\n{tail}", True


def cut_line(line: str, limit: int) -> str:
    """Cut ``line`` to ``limit`` characters, with a note of how long it is."""
    if len(line) <= limit:
        return line
    return f"{line[:limit]} [... line cut: {limit:,} of {len(line):,} characters shown]"
