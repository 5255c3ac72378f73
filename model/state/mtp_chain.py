"""The MTP layer's memory of a sequence: what a pass adds to it, and how it is saved.

Single tokens are not run through the layer one by one: a chain owes them until several can share a
pass, or until somebody guesses from it.

The position of a token holds the hidden state before it, so the first token of a chain has none. A
saved span holds the positions of its last tokens: of all, or of those after the first token of a
chain that begins in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.errors import MemoryFull, StateError
from model.state.pages import Layout, MtpChain, Page, read_positions, write_positions

MOST_OWED = 8
"""A chain that owes this many ids pays them before the next pass."""


@dataclass(frozen=True)
class ChainRows:
    """A pass over several ``ids``, whose hidden states are ``[ids, hidden]``, and the chain before
    it (None: none yet)."""

    before: MtpChain | None
    ids: Sequence[int]
    hidden: Tensor

    def after(self, count: int) -> MtpChain:
        """Return the chain after the first ``count`` ids, at least one."""
        # A copy: a view would keep the hidden states of the whole pass.
        ids, hidden = self.ids[:count], self.hidden[:count].clone()
        if self.before is None:
            return MtpChain.begin(ids, hidden)
        return self.before.extended(ids, hidden)


_PREFIX = "mtp_"
_HIDDEN, _FIRST = _PREFIX + "hidden", _PREFIX + "first"


@dataclass(frozen=True)
class SavedChain:
    """``chain``, which owes nothing, after the first ``tokens`` of a sequence, in the form that is
    saved. ``layout`` is that of its pages."""

    layout: Layout
    chain: MtpChain
    tokens: int

    @property
    def first(self) -> int:
        """The token that has the chain's first position."""
        return self.tokens - self.chain.length

    def tensors(self) -> dict[str, Tensor]:
        """Return the part of fixed size: ``mtp_hidden [1, hidden]`` and ``mtp_first [1]``."""
        return {_HIDDEN: self.chain.hidden, _FIRST: torch.tensor([self.first])}

    def span(self, start: int, end: int) -> dict[str, Tensor]:
        """Return what the tokens ``start`` to ``end`` have added, named and shaped as the state's
        own span with ``mtp_`` before each name: nothing of those before ``first``."""
        cut = max(0, start - self.first), max(0, end - self.first)
        found = read_positions(self.layout, self.chain.pages, *cut)
        return {_PREFIX + name: tensor for name, tensor in found.items()}


class ChainLoader:
    """Takes a saved chain out of a saved state, whose fixed part is ``tensors``, and rebuilds it.

    ``rest`` is what else there is of ``tensors``. A chain changes nothing that is said: if its
    positions are missing or are others than they must be, a new one begins.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._hidden, self._first = tensors.get(_HIDDEN), tensors.get(_FIRST)
        self.rest = {name: t for name, t in tensors.items() if not name.startswith(_PREFIX)}
        self._spans: list[tuple[int, dict[str, Tensor]]] = []

    def without(self, spans: Iterable[Mapping[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        """Yield ``spans`` without what is the chain's, which is kept."""
        for span in spans:
            rest = {name: t for name, t in span.items() if not name.startswith(_PREFIX)}
            own = {n.removeprefix(_PREFIX): t for n, t in span.items() if n.startswith(_PREFIX)}
            self._spans.append((len(next(iter(rest.values()), ())), own))
            yield rest

    def chain(self, layout: Layout, width: int) -> MtpChain | None:
        """Return the chain, with a hidden state of ``width``, once all spans have been taken; None
        if no state was saved or memory does not suffice."""
        hidden, first = self._hidden, self._first
        if hidden is None or (hidden.shape, hidden.dtype) != ((1, width), torch.float32):
            return None
        fresh = MtpChain((), 0, hidden.clone())
        if first is None or (first.shape, first.dtype) != ((1,), torch.int64) or int(first) < 1:
            return fresh
        pages: list[Page] = []
        length = end = 0
        try:
            with layout.memory.passing():
                for tokens, span in self._spans:
                    start, end = end, end + tokens
                    missing = max(0, end - max(start, int(first)))
                    # Spans before the chain may hold positions of one that ended.
                    if missing and len(span.get("kv", ())) != missing:
                        return fresh
                    if missing:
                        length = write_positions(layout, pages, length, span)
        except StateError:
            return fresh
        except MemoryFull:
            return None
        return MtpChain(tuple(pages), length, fresh.hidden)
