"""Ids of picture tokens: negative numbers that name the picture and the place in it.

In the checkpoint's own ids every token of every picture is the same placeholder, so two prompts
with different pictures look alike. Here the id of token ``j`` of a picture is
``-1 - (j + 16384 * piece)``, where ``piece`` is the ``j % 16``-th of the sixteen 16-bit pieces of
the SHA-256 of its pixels. Sixteen tokens spell the whole hash. Whatever compares, hashes, stores or
shares ids thus tells pictures apart without knowing of them, and no text and no sample can make
such an id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LEAST_TOKENS = 16
MOST_TOKENS = 1 << 14


@dataclass(frozen=True)
class ImageRun:
    """``count`` tokens of one picture among ids, from index ``start`` on: its tokens from
    ``offset`` on. ``pieces`` are those of the hash that they spell, by number."""

    start: int
    count: int
    offset: int
    pieces: dict[int, int]

    @property
    def digest(self) -> str | None:
        """The hash of the picture in hexadecimal; None if too few tokens are there to spell it."""
        if len(self.pieces) < LEAST_TOKENS:
            return None
        return b"".join(self.pieces[n].to_bytes(2, "big") for n in range(LEAST_TOKENS)).hex()


def image_ids(digest: str, tokens: int) -> list[int]:
    """Return the ids of a picture with the hash ``digest`` in hexadecimal."""
    data = bytes.fromhex(digest)
    pieces = [int.from_bytes(data[2 * n : 2 * n + 2], "big") for n in range(LEAST_TOKENS)]
    return [-1 - (j + MOST_TOKENS * pieces[j % LEAST_TOKENS]) for j in range(tokens)]


def image_runs(ids: Sequence[int]) -> Iterator[ImageRun]:
    """Yield the runs of picture tokens in ``ids``.

    Raises ``ValueError`` for negative ids that no picture has.
    """
    start = 0
    while start < len(ids):
        if ids[start] >= 0:
            start += 1
            continue
        offset = (-1 - ids[start]) % MOST_TOKENS
        pieces: dict[int, int] = {}
        end = start
        while end < len(ids) and ids[end] < 0:
            piece, at = divmod(-1 - ids[end], MOST_TOKENS)
            if at != offset + end - start:
                break
            if piece >> 16 or pieces.setdefault(at % LEAST_TOKENS, piece) != piece:
                raise ValueError("the ids contain picture tokens that belong to no picture")
            end += 1
        yield ImageRun(start, end - start, offset, pieces)
        start = end


def placeholders(ids: Sequence[int], placeholder: int) -> list[int]:
    """Return ``ids`` in the checkpoint's own form: ``placeholder`` for each picture token."""
    return [placeholder if i < 0 else i for i in ids]
