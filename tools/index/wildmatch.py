"""Match a path against a pattern as git's own ``wildmatch`` does, byte for byte.

The rules are those of git's wildmatch.c, with its return values: where a star ends in a dead end,
they say which star may go on, so that no pattern tries the same text again and again. A bound on
the steps of one match keeps the rest in check; past it nothing matches.
"""

from __future__ import annotations

from collections.abc import Callable

_MAX_STEPS = 20_000
_MATCH, _NO_MATCH, _ABORT_ALL, _ABORT_TO_STAR_STAR = range(4)
_SLASH, _STAR, _QUESTION, _BACKSLASH = b"/*?\\"
_OPEN, _CLOSE, _BANG, _CARET, _DASH, _COLON = b"[]!^-:"
SPECIAL = frozenset(b"*?[\\")

_SPACES = frozenset(b" \t\n\r")
_CLASSES: dict[bytes, Callable[[int], bool]] = {
    b"alnum": lambda c: c < 128 and chr(c).isalnum(),
    b"alpha": lambda c: c < 128 and chr(c).isalpha(),
    b"blank": lambda c: c in b" \t",
    b"cntrl": lambda c: c < 32 or c == 127,
    b"digit": lambda c: c in b"0123456789",
    b"graph": lambda c: 32 < c < 127,
    b"lower": lambda c: c < 128 and chr(c).islower(),
    b"print": lambda c: 32 <= c < 127,
    b"punct": lambda c: 32 < c < 127 and not chr(c).isalnum(),
    b"space": lambda c: c in _SPACES,
    b"upper": lambda c: c < 128 and chr(c).isupper(),
    b"xdigit": lambda c: c in b"0123456789abcdefABCDEF",
}


def wildmatch(pattern: bytes, text: bytes, *, pathname: bool) -> bool:
    """Tell whether ``pattern`` matches ``text``; with ``pathname`` only ``**`` crosses ``/``."""
    return _Match(pattern, text, pathname).run(0, 0) == _MATCH


class _Match:
    """One match. Positions past the end read as 0, as in C."""

    def __init__(self, pattern: bytes, text: bytes, pathname: bool) -> None:
        self._pattern = pattern + b"\0\0"
        self._text = text + b"\0"
        self._pathname = pathname
        self._steps = _MAX_STEPS

    def run(self, p: int, t: int) -> int:
        """Match the pattern from ``p`` with the text from ``t``."""
        pattern, text, first = self._pattern, self._text, p
        while char := pattern[p]:
            self._steps -= 1
            if self._steps < 0:
                return _ABORT_ALL
            seen = text[t]
            if not seen and char != _STAR:
                return _ABORT_ALL
            if char == _STAR:
                return self._star(first, p, t)
            if char == _OPEN:
                matched, p = self._in_class(p, seen)
                if p < 0:
                    return _ABORT_ALL
                if not matched or (self._pathname and seen == _SLASH):
                    return _NO_MATCH
            elif char == _QUESTION:
                if self._pathname and seen == _SLASH:
                    return _NO_MATCH
            else:
                if char == _BACKSLASH:
                    p += 1
                    char = pattern[p]
                if seen != char:
                    return _NO_MATCH
            p += 1
            t += 1
        return _NO_MATCH if text[t] else _MATCH

    def _star(self, first: int, p: int, t: int) -> int:
        """Match from the star at ``p``; ``first`` is where this part of the pattern begins."""
        pattern, text = self._pattern, self._text
        before = p - 1
        p += 1
        crosses = not self._pathname
        if pattern[p] == _STAR:
            while pattern[p] == _STAR:
                p += 1
            after = pattern[p : p + 2]
            ends = after[0] in (0, _SLASH) or after == b"\\/"
            if self._pathname and (before < first or pattern[before] == _SLASH) and ends:
                # "a/**/b" also matches "a/b".
                if pattern[p] == _SLASH and self.run(p + 1, t) == _MATCH:
                    return _MATCH
                crosses = True
        if not pattern[p]:
            return _MATCH if crosses or text.find(b"/", t) < 0 else _ABORT_TO_STAR_STAR
        if not crosses and pattern[p] == _SLASH:
            slash = text.find(b"/", t)
            return self.run(p + 1, slash + 1) if slash >= 0 else _ABORT_ALL
        return self._try_star(p, t, crosses=crosses)

    def _try_star(self, p: int, t: int, *, crosses: bool) -> int:
        """Let the star before ``p`` take more and more of the text from ``t``."""
        pattern, text = self._pattern, self._text
        seen = text[t]
        while seen:
            if pattern[p] not in SPECIAL:
                while (seen := text[t]) and (crosses or seen != _SLASH) and seen != pattern[p]:
                    t += 1
                if seen != pattern[p]:
                    return _ABORT_ALL if crosses else _ABORT_TO_STAR_STAR
            matched = self.run(p, t)
            if matched != _NO_MATCH:
                if not crosses or matched != _ABORT_TO_STAR_STAR:
                    return matched
            elif not crosses and seen == _SLASH:
                return _ABORT_TO_STAR_STAR
            self._steps -= 1
            t += 1
            seen = text[t]
        return _ABORT_ALL

    def _in_class(self, p: int, seen: int) -> tuple[bool, int]:
        """Tell whether the class at ``p`` has ``seen``, and where it ends (-1: it is malformed)."""
        pattern = self._pattern
        p += 1
        negated = pattern[p] in (_BANG, _CARET)
        p += negated
        char, previous, matched = pattern[p], 0, False
        while True:
            if not char:
                return False, -1
            if char == _BACKSLASH:
                p += 1
                char = pattern[p]
                if not char:
                    return False, -1
                matched |= seen == char
            elif char == _DASH and previous and pattern[p + 1] not in (0, _CLOSE):
                p += 1
                if pattern[p] == _BACKSLASH:
                    p += 1
                if not pattern[p]:
                    return False, -1
                matched |= previous <= seen <= pattern[p]
                char = 0
            elif char == _OPEN and pattern[p + 1] == _COLON:
                end = pattern.find(b"]", p + 2)
                if end < 0:
                    return False, -1
                if end - p - 3 < 0 or pattern[end - 1] != _COLON:
                    matched |= seen == _OPEN
                else:
                    known = _CLASSES.get(pattern[p + 2 : end - 1])
                    if known is None:
                        return False, -1
                    matched |= known(seen)
                    p, char = end, 0
            else:
                matched |= seen == char
            previous = char
            p += 1
            char = pattern[p]
            if char == _CLOSE:
                return matched != negated, p
