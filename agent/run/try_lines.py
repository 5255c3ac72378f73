"""Tries to choose from, as lines: how each ended, what its check gave, and its diff."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.text import fenced

if TYPE_CHECKING:
    from agent.run.tries import Try

SHOWN_LINES = 30


def try_lines(tries: Sequence[Try]) -> list[str]:
    """Return a headline for each try and the beginning of its diff; equal diffs are shown once."""
    lines: list[str] = []
    first: dict[str, int] = {}
    for one in tries:
        lines.append(f"=== try {one.number}: {_ended(one)} (session {one.session})")
        if one.patch and one.patch in first:
            lines.append(f"as try {first[one.patch]}")
        elif one.patch:
            first[one.patch] = one.number
            whole = one.patch.rstrip("\n").split("\n")
            lines += whole[:SHOWN_LINES]
            if len(whole) > SHOWN_LINES:
                lines.append(f"{len(whole) - SHOWN_LINES} more lines: /tree {one.session}, /diff")
    return lines


def try_text(tries: Sequence[Try]) -> str:
    """Return the same as Markdown."""
    return fenced("\n".join(try_lines(tries)))


def _ended(one: Try) -> str:
    if one.error:
        return one.error
    changed = sum(line.startswith("diff --git ") for line in one.patch.split("\n"))
    files = "nothing changed" if not changed else f"{changed} file{'s' * (changed > 1)} changed"
    if one.check is None:
        return f"{one.status}, {files}"
    return f"{one.status}, {files}, check {'passes' if one.check.passed else 'fails'}"
