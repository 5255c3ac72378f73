"""A vocabulary sorted by bytes, to find the tokens that a text may go on with."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

from model.chat.tokenizer import Tokenizer

MARKS = (
    b"<tool_call>",
    b"</tool_call>",
    b"<function=",
    b"</function",
    b"<parameter=",
    b"</parameter",
    b"<think>",
)
"""The markup of a turn. A token that holds one whole is looked at wherever it may come."""


class TokenTable:
    """The tokens of a vocabulary that have bytes. Immutable; made once for a checkpoint."""

    def __init__(self, words: Sequence[tuple[bytes, int]], size: int) -> None:
        """Take the bytes and the id of each token, and the size of the vocabulary."""
        ordered = sorted(words)
        self.size = size
        self.words = [word for word, _ in ordered]
        self.ids = [token for _, token in ordered]
        self.longest = max(map(len, self.words), default=0)
        self._by_id = {token: word for word, token in ordered}
        self.marked = self._with(lambda word: any(mark in word.lower() for mark in MARKS))
        self.ending_tags = self._with(lambda word: b">" in word or b"\n" in word)
        # In a JSON string these end it, begin an escape, or may not stand.
        self.quoting = self._with(lambda w: b'"' in w or b"\\" in w or min(w, default=32) < 32)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TokenTable:
        """Read the vocabulary of ``tokenizer``."""
        size = tokenizer.vocab_size
        words = ((tokenizer.token_bytes(token), token) for token in range(size))
        return cls([(word, token) for word, token in words if word], size)

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes of a token, empty for one that has none."""
        return self._by_id.get(token, b"")

    @cached_property
    def by_length(self) -> Mapping[int, Mapping[bytes, int]]:
        """The place of each word, by its length; of words with the same bytes the last one."""
        found: dict[int, dict[bytes, int]] = {}
        for at, word in enumerate(self.words):
            found.setdefault(len(word), {})[word] = at
        return found

    def starting(self, prefix: bytes) -> range:
        """Return the places in ``words`` of those that begin with ``prefix``."""
        low = bisect_left(self.words, prefix)
        return range(low, bisect_left(self.words, _after(prefix), low) if prefix else self.count)

    def narrow(self, places: range, prefix: bytes) -> range:
        """Return the places among ``places`` of the words that begin with ``prefix``."""
        low = bisect_left(self.words, prefix, places.start, places.stop)
        return range(low, bisect_left(self.words, _after(prefix), low, places.stop))

    def beginnings(self, text: bytes) -> Iterator[int]:
        """Yield the places of all words that ``text`` begins with."""
        places = range(self.count)
        for length in range(1, min(len(text), self.longest) + 1):
            places = self.narrow(places, text[:length])
            if not places:
                return
            at = places.start
            while at < places.stop and len(self.words[at]) == length:
                yield at
                at += 1

    @property
    def count(self) -> int:
        """The number of words."""
        return len(self.words)

    def _with(self, holds: Callable[[bytes], bool]) -> tuple[int, ...]:
        return tuple(at for at, word in enumerate(self.words) if holds(word))


def _after(prefix: bytes) -> bytes:
    """Return the first bytes after all that begin with ``prefix``."""
    bare = prefix.rstrip(b"\xff")
    return bare[:-1] + bytes([bare[-1] + 1]) if bare else b"\xff" * (len(prefix) + 256)
