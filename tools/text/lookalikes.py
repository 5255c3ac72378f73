"""Match text whose characters look alike: spaces, dashes, invisible and composed characters.

A model writes what it sees. It cannot see a no-break space, a zero-width one, or whether an accent
is a character of its own (NFC and NFD, Unicode Standard Annex 15). Two texts match here if they are
equal once such characters are plain; the place must be the only one, and what was found is named.
"""

from __future__ import annotations

import bisect
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from tools.text.replace import count_common_prefix, find_occurrences, line_number

_SPACES = "\u00a0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_INVISIBLE = "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufeff" + "".join(
    chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
)
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_PLAIN = {
    **dict.fromkeys(_SPACES, " "),
    **dict.fromkeys(_INVISIBLE, ""),
    **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **dict.fromkeys(_DASHES, "-"),
    "\u2026": "...",
}
_MARKS = "".join(chr(code) for code in range(0x300, 0x20000) if unicodedata.combining(chr(code)))
# The vowels and final consonants of Hangul syllables that are written out.
_COMBINING = re.compile(f"[{_MARKS}\u1160-\u11ff]")
_PIECES = re.compile(
    rf"[\x00-\x7f]+(?!{_COMBINING.pattern})|[\x00-\x7f]{_COMBINING.pattern}+"
    rf"|[^\x00-\x7f]{_COMBINING.pattern}*",
)
# Letters of other alphabets that are drawn as Latin ones (Unicode Technical Standard 39).
_DRAWN_AS = dict(
    zip(
        "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u04bb\u0410\u0412\u0415"
        "\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0406\u0408\u0405\u0391\u0392\u0395\u0396"
        "\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf\u03bd\u0131",
        "aeopcyxijsdhABEKMHOPCTXIJSABEZHIKMNOPTYXovi",
        strict=True,
    )
)
_NAMED = 3
_SEARCHED = 2_000_000


@dataclass(frozen=True)
class _Piece:
    """A run of ASCII, or another character with its marks: its places, its text, its plain form."""

    start: int
    plain_start: int
    text: str
    plain: str


class _Plain:
    """A text with its look-alikes made plain, and the way back to the positions of the text."""

    def __init__(self, text: str) -> None:
        self.pieces = list(_split(text))
        self.text = "".join(piece.plain for piece in self.pieces)
        self._source = text
        self._starts = [piece.plain_start for piece in self.pieces]

    def begin(self, at: int) -> int | None:
        """Return where the plain position ``at`` begins in the text; None inside a character."""
        if at >= len(self.text):
            return len(self._source) if at == len(self.text) else None
        piece = self.pieces[bisect.bisect_right(self._starts, at) - 1]
        if piece.text == piece.plain or at == piece.plain_start:
            return piece.start + at - piece.plain_start
        return None

    def end(self, at: int) -> int | None:
        """Return where what is before the plain position ``at`` ends in the text."""
        if at <= 0:
            return 0
        piece = self.pieces[bisect.bisect_right(self._starts, at - 1) - 1]
        if piece.text == piece.plain:
            return piece.start + at - piece.plain_start
        whole = at == piece.plain_start + len(piece.plain)
        return piece.start + len(piece.text) if whole else None

    def slice(self, first: int, last: int) -> str:
        """Return the text between two plain positions; "" where that is inside a character."""
        start, end = self.begin(first), self.end(last)
        return self._source[start:end] if start is not None and end is not None else ""


@dataclass(frozen=True)
class LookalikeMatch:
    """The one place that looks like a text: its beginning and end, and the differences in words."""

    start: int
    end: int
    differences: str


def make_plain(text: str) -> str:
    """Return ``text`` with composed characters, and with plain ones for those that look alike."""
    return text if text.isascii() else "".join(piece.plain for piece in _split(text))


def find_lookalike(text: str, old: str) -> LookalikeMatch | None:
    """Find the only place in ``text`` that looks like ``old``; None if there is not just one."""
    if (text.isascii() and old.isascii()) or len(text) + len(old) > _SEARCHED:
        return None
    wanted = make_plain(old)
    if not wanted.strip():
        return None
    plain = _Plain(text)
    found = find_occurrences(plain.text, wanted, overlapping=True)
    if len(found) != 1:
        return None
    start, end = plain.begin(found[0]), plain.end(found[0] + len(wanted))
    if start is None or end is None:
        return None
    return LookalikeMatch(start, end, _name_differences(text, start, text[start:end], old))


def replace_lookalike(part: str, old: str, new: str) -> str:
    """Return ``new`` for ``part``, which looks like ``old``, with the characters of ``part`` kept.

    What ``old`` and ``new`` share at both ends stays as ``part`` has it.
    """
    plain = _Plain(part)
    head = count_common_prefix(old, new)
    tail = count_common_prefix(old[head:][::-1], new[head:][::-1])
    first = plain.end(len(make_plain(old[:head])))
    last = plain.begin(len(plain.text) - len(make_plain(old[len(old) - tail :])))
    if first is None:
        head, first = 0, 0
    if last is None or last < first:
        tail, last = 0, len(part)
    return part[:first] + new[head : len(new) - tail] + part[last:]


def _name_differences(text: str, start: int, part: str, old: str) -> str:
    """Name the characters in which ``part``, at ``start`` of ``text``, differs from ``old``."""
    ours, theirs = _Plain(part), _Plain(old)
    named = []
    for piece in ours.pieces:
        other = theirs.slice(piece.plain_start, piece.plain_start + len(piece.plain))
        if piece.text.isascii() or piece.text == other:
            continue
        where = _name_place(text, start + piece.start)
        instead = f" for {other!r}" if piece.plain and other else ""
        named.append(f"{name_character(piece.text)} at {where}{instead}")
    if named:
        more = f" and {len(named) - _NAMED:,} more" if len(named) > _NAMED else ""
        return f"the file has {', '.join(named[:_NAMED])}{more}"
    hidden = [piece.text for piece in theirs.pieces if not piece.text.isascii()]
    return f"old_string has {name_character(hidden[0])}" if hidden else ""


def name_odd_characters(text: str, start: int, end: int, old: str) -> str:
    """Name the look-alikes of ``text[start:end]`` that ``old`` lacks, or the reverse; maybe "".

    These are characters that no eye tells from others: spaces, invisible ones, marks on letters,
    ligatures, letters of another alphabet.
    """
    part = text[start:end]
    named: dict[str, str] = {}
    for at, char in enumerate(part):
        if char not in old and (_is_hidden(char) or _drawn_as(char, old)):
            named.setdefault(char, f"{name_character(char)} at {_name_place(text, start + at)}")
    if named:
        return f"the file has {', '.join(list(named.values())[:_NAMED])}"
    hidden = [
        char for char in old if char not in part and (_is_hidden(char) or _drawn_as(char, part))
    ]
    return f"old_string has {name_character(hidden[0])}" if hidden else ""


def _is_hidden(char: str) -> bool:
    return not char.isascii() and (_PLAIN.get(char) in ("", " ") or _combines(char))


def _drawn_as(char: str, other: str) -> bool:
    """Tell whether ``char`` looks like letters that ``other`` has in its place."""
    if char.isascii():
        return False
    plain = _DRAWN_AS.get(char) or unicodedata.normalize("NFKC", char)
    return plain.isascii() and plain in other


def _name_place(text: str, at: int) -> str:
    return f"line {line_number(text, at)}, column {at - text.rfind(chr(10), 0, at)}"


def name_character(text: str) -> str:
    """Return code points and names: ``U+00A0 (no-break space)``."""
    return " + ".join(
        f"U+{ord(char):04X} ({unicodedata.name(char, 'no name').lower()})" for char in text[:4]
    )


def _split(text: str) -> Iterator[_Piece]:
    at = plain_start = 0
    for match in _PIECES.finditer(text):
        piece = match[0]
        if not piece.isascii():
            piece_plain = _PLAIN.get(piece)
            plain = unicodedata.normalize("NFC", piece) if piece_plain is None else piece_plain
        else:
            plain = piece
        yield _Piece(at, plain_start, piece, plain)
        at += len(piece)
        plain_start += len(plain)


def _combines(char: str) -> bool:
    return _COMBINING.fullmatch(char) is not None
