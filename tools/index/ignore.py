"""``.gitignore`` rules, read from an untrusted tree as git reads them, byte for byte.

The rules are those of git's dir.c. Patterns without wildcards are compared, and those with one star
at their beginning; other names are matched by an expression whose stars never go back, if it means
the same, and all the rest by ``wildmatch``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tools.index.wildmatch import SPECIAL, wildmatch

MAX_BYTES = 256_000
MAX_RULES = 2_000
_MAX_PATTERN = 1_000
_MAX_STARS = 64
_MARK = b"\xef\xbb\xbf"
# What means the same to git and in an expression.
_TOKENS = re.compile(rb"(\*+)|(\?)|(\[[A-Za-z0-9_.]+\])|([^*?\[\\])")


@dataclass(frozen=True)
class _Rule:
    """One line. ``anchored`` patterns are about the path from the folder, others about the name."""

    pattern: bytes
    negated: bool
    folders_only: bool
    anchored: bool
    literal: int
    suffix: bytes | None = None
    expression: re.Pattern[bytes] | None = None

    def fits(self, path: bytes, name: bytes, *, is_folder: bool) -> bool:
        if self.folders_only and not is_folder:
            return False
        if self.anchored:
            return self._fits_path(path)
        if self.literal == len(self.pattern):
            return name == self.pattern
        if self.suffix is not None:
            return name.endswith(self.suffix)
        if self.expression is not None:
            return self.expression.fullmatch(name) is not None
        return wildmatch(self.pattern, name, pathname=False)

    def _fits_path(self, path: bytes) -> bool:
        head = self.literal
        if path[:head] != self.pattern[:head]:
            return False
        if head == len(self.pattern):
            return len(path) == head
        return wildmatch(self.pattern[head:], path[head:], pathname=True)


class IgnoreRules:
    """The rules of one ``.gitignore``; paths are relative to the folder that holds it."""

    def __init__(self, text: bytes | str) -> None:
        data = os.fsencode(text) if isinstance(text, str) else text
        lines = data.removeprefix(_MARK).split(b"\n")[:MAX_RULES]
        self._rules = [rule for line in lines if (rule := _parse(line)) is not None]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def decides(self, path: str, *, is_folder: bool) -> bool | None:
        """Return True: ignored; False: taken back by a ``!`` rule; None: no rule is about it."""
        data = os.fsencode(path)
        name = data[data.rfind(b"/") + 1 :]
        for rule in reversed(self._rules):
            if rule.fits(data, name, is_folder=is_folder):
                return not rule.negated
        return None


def is_ignored(rules: Sequence[tuple[str, IgnoreRules]], path: str, *, is_folder: bool) -> bool:
    """Return whether git would ignore ``path``, whose parent folders are not ignored.

    ``rules`` go from the outermost folder inwards, each with its folder (``""`` or ``a/b/``).
    """
    for folder, own in reversed(rules):
        decision = own.decides(path[len(folder) :], is_folder=is_folder)
        if decision is not None:
            return decision
    return False


def _parse(line: bytes) -> _Rule | None:
    if line.startswith(b"#"):
        return None
    pattern = _trim(line.removesuffix(b"\r").partition(b"\0")[0])
    negated = pattern.startswith(b"!")
    pattern = pattern[negated:]
    suffix = pattern[1:] if pattern.startswith(b"*") and not SPECIAL & set(pattern[1:]) else None
    folders_only = pattern.endswith(b"/")
    pattern = pattern[:-1] if folders_only else pattern
    if not pattern or len(pattern) > _MAX_PATTERN or pattern.count(b"*") > _MAX_STARS:
        return None
    anchored = b"/" in pattern
    if not anchored and suffix is not None:
        suffix = pattern[1:]
    if pattern.startswith(b"**/") and b"/" not in pattern[3:]:
        # At any depth, as a name alone.
        pattern, anchored, suffix = pattern[3:], False, None
    pattern = pattern.removeprefix(b"/") if anchored else pattern
    literal = next((at for at, byte in enumerate(pattern) if byte in SPECIAL), len(pattern))
    expression = None if anchored or suffix is not None else _compile(pattern)
    return _Rule(pattern, negated, folders_only, anchored, literal, suffix, expression)


def _trim(line: bytes) -> bytes:
    """Return the line without trailing spaces, unless a backslash keeps the first of them."""
    bare = line.rstrip(b" ")
    if len(bare) == len(line):
        return line
    backslashes = len(bare) - len(bare.rstrip(b"\\"))
    return bare + b" " if backslashes % 2 else bare


def _compile(pattern: bytes) -> re.Pattern[bytes] | None:
    """Return an expression for a name's pattern of stars, ``?`` and plain classes; else None."""
    pieces: list[list[bytes]] = [[]]
    at = 0
    while at < len(pattern):
        token = _TOKENS.match(pattern, at)
        if token is None:
            return None
        at = token.end()
        if token[1]:
            pieces.append([])
        else:
            pieces[-1].append(b"." if token[2] else token[3] or re.escape(token[4]))
    first, *middle = [b"".join(piece) for piece in pieces]
    if not middle:
        return re.compile(first, re.DOTALL)
    last = middle.pop()
    lazy = b"".join(b"(?>.*?" + piece + b")" for piece in middle if piece)
    return re.compile(first + lazy + b".*" + last, re.DOTALL)
