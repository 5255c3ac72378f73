"""``.gitignore`` rules, read from an untrusted tree.

The rules are those of gitignore(5). Each becomes a regular expression whose stars never go back
once they have matched, so no pattern takes long on any name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_BYTES = 256_000
MAX_RULES = 2_000
_MAX_PATTERN = 1_000
_MAX_STARS = 32
_WILD = frozenset("*?[\\")


@dataclass(frozen=True)
class _Rule:
    """One line. ``literal`` or ``suffix`` decide by the name alone, ``regex`` by the whole path."""

    negated: bool
    folders_only: bool
    literal: str | None = None
    suffix: str | None = None
    regex: re.Pattern[str] | None = None

    def fits(self, path: str, name: str, *, is_folder: bool) -> bool:
        if self.folders_only and not is_folder:
            return False
        if self.literal is not None:
            return name == self.literal
        if self.suffix is not None:
            return name.endswith(self.suffix)
        return self.regex is not None and self.regex.fullmatch(path) is not None


class IgnoreRules:
    """The rules of one ``.gitignore``; paths are relative to the folder that holds it."""

    def __init__(self, text: str) -> None:
        lines = text.splitlines()[:MAX_RULES]
        self._rules = [rule for line in lines if (rule := _parse(line)) is not None]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def decides(self, path: str, *, is_folder: bool) -> bool | None:
        """True: ignored; False: taken back by a ``!`` rule; None: no rule is about it."""
        name = path.rsplit("/", 1)[-1]
        for rule in reversed(self._rules):
            if rule.fits(path, name, is_folder=is_folder):
                return not rule.negated
        return None


def is_ignored(rules: Sequence[tuple[str, IgnoreRules]], path: str, *, is_folder: bool) -> bool:
    """Whether git would ignore ``path``, whose parent folders are not ignored.

    ``rules`` go from the outermost folder inwards, each with its folder (``""`` or ``a/b/``).
    """
    for folder, own in reversed(rules):
        decision = own.decides(path[len(folder) :], is_folder=is_folder)
        if decision is not None:
            return decision
    return False


def _parse(line: str) -> _Rule | None:
    pattern = _strip(line)
    if not pattern or pattern.startswith("#") or len(pattern) > _MAX_PATTERN:
        return None
    negated = pattern.startswith("!")
    pattern = pattern[negated:]
    folders_only = pattern.endswith("/")
    pattern = pattern.removesuffix("/")
    if not pattern:
        return None
    anchored = "/" in pattern
    pattern = pattern.removeprefix("/")
    if not anchored:
        if not _WILD & set(pattern):
            return _Rule(negated, folders_only, literal=pattern)
        if pattern[0] == "*" and len(pattern) > 1 and not _WILD & set(pattern[1:]):
            return _Rule(negated, folders_only, suffix=pattern[1:])
        pattern = f"**/{pattern}"
    if pattern.count("*") > _MAX_STARS:
        return None
    try:
        return _Rule(negated, folders_only, regex=re.compile(_regex(pattern), re.DOTALL))
    except re.error:
        return None


def _strip(line: str) -> str:
    """Without trailing spaces, unless a backslash keeps the first of them."""
    stripped = line.rstrip(" \t\r")
    if stripped.endswith("\\") and len(stripped) < len(line):
        stripped += " "
    return stripped


def _regex(pattern: str) -> str:
    """The pattern, with runs of whole names between ``**`` matched at the first place they fit."""
    runs: list[list[str]] = [[]]
    for segment in pattern.split("/"):
        if segment == "**":
            if runs[-1] or len(runs) == 1:
                runs.append([])
        else:
            runs[-1].append(_segment(segment))
    parts = ["/".join(runs[0])]
    for number, run in enumerate(runs[1:], 1):
        after = "/" if parts[-1] else ""
        body = "/".join(run)
        if number == len(runs) - 1:
            # The last must reach the end: "a/**" takes everything inside a.
            parts.append(f"{after}(?:[^/]+/)*{body}" if body else f"{after}.+")
        else:
            parts.append(f"{after}(?>(?:[^/]+/)*?{body}(?=/))")
    return "".join(parts)


def _segment(segment: str) -> str:
    """One name: each piece after a star is taken where it first fits, the last at the end."""
    pieces: list[str] = []
    current: list[str] = []
    at = 0
    while at < len(segment):
        char = segment[at]
        end = _class_end(segment, at) if char == "[" else -1
        if char == "*":
            pieces.append("".join(current))
            current = []
        elif char == "?":
            current.append("[^/]")
        elif end > 0:
            inner = segment[at + 1 : end]
            negated = inner[0] in "!^"
            body = re.sub(r"([\\\[\]^&~|])", r"\\\1", inner[negated:])
            current.append(f"(?!/)[{'^' if negated else ''}{body}]")
            at = end
        elif char == "\\" and at + 1 < len(segment):
            at += 1
            current.append(re.escape(segment[at]))
        else:
            current.append(re.escape(char))
        at += 1
    pieces.append("".join(current))
    if len(pieces) == 1:
        return pieces[0]
    first, *middle, last = pieces
    lazy = "".join(f"(?>[^/]*?{piece})" for piece in middle if piece)
    return f"{first}{lazy}[^/]*{last}(?=/|\\Z)"


def _class_end(segment: str, start: int) -> int:
    first = start + 2 if segment[start + 1 : start + 2] in ("!", "^") else start + 1
    return segment.find("]", first + 1)
