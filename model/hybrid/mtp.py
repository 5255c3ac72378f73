"""Guesses by the checkpoint's own MTP layer, and the memory that it needs of each sequence.

The layer reads the main network's normalised hidden state at a token and the id after it, and its
output predicts the id after that one. A further guess is made from the layer's own output in place
of the main network's (DeepSeek-V3 report, 2024, section 2.2; vLLM ``qwen3_5_mtp.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from model.errors import MemoryFull
from model.state.mtp_chain import MOST_OWED, ChainRows, SavedChain
from model.state.pages import PAGE, Layout, MtpChain, Page
from model.state.passes import grow


class GuessLayer(Protocol):
    """An MTP layer that something runs (``cpu_mtp.NativeMtp``), and the ids that it guesses."""

    @property
    def ids(self) -> Sequence[int]:
        """The ids that ``logits`` are of, rising."""
        ...

    def run(
        self,
        ids: Sequence[int],
        hidden: Tensor,
        tables: Sequence[Sequence[Page]],
        starts: Sequence[int],
        times: Sequence[int],
        *,
        keys_only: bool = False,
    ) -> Tensor:
        """Run rows of several sequences, ``times`` of each, that go on at ``starts`` in ``tables``.

        A row is one of ``ids`` and the hidden state before it, ``hidden [rows, hidden]``. Writes
        keys and values into the pages; returns the layer's own hidden states, shaped alike, or
        with ``keys_only`` what was given.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Return ``[rows, ids]`` in float32 from ``hidden [rows, hidden]``, row by row."""
        ...


class MtpRunner:
    """Runs the MTP layer for a network whose states take their room from ``layout.memory``.

    One thread at a time may call it, inside ``layout.memory.passing()``.
    """

    def __init__(self, layer: GuessLayer, layout: Layout) -> None:
        self._layer = layer
        self.layout = replace(layout, page=(1, *layout.page[1:]))

    @property
    def ids(self) -> Sequence[int]:
        """The ids that ``logits`` are of, rising."""
        return self._layer.ids

    def logits(self, hidden: Tensor) -> Tensor:
        """Return ``[rows, ids]`` from the layer's ``hidden [rows, hidden]``."""
        return self._layer.logits(hidden)

    def follow(
        self, chain: MtpChain | None, ids: Sequence[int], hidden: Tensor
    ) -> ChainRows | None:
        """Let ``chain`` (None: one that begins here) follow a pass over ``ids``, whose hidden
        states are ``[ids, hidden]``. Behind a picture, which the layer does not read, another
        begins. Return None where memory does not suffice, or no text follows the picture.
        """
        last = max((n for n, i in enumerate(ids) if i < 0), default=-1)
        if last >= 0:
            text = ids[last + 1 :]
            return ChainRows(None, text, hidden[last + 1 :]) if text else None
        if chain is not None and len(chain.owed) >= MOST_OWED:
            chain = self.settle(chain)
            if chain is None:
                return None
        return ChainRows(chain, ids, hidden)

    def settle(self, chain: MtpChain) -> MtpChain | None:
        """Run what ``chain`` owes; return None where memory does not suffice."""
        if not chain.owed:
            return chain
        count = len(chain.owed)
        claims: list[tuple[Page, int]] = []
        try:
            pages = grow(self.layout, chain.length, chain.pages, count, claims)
        except MemoryFull:
            for page, filled in reversed(claims):
                page.filled = filled
            return None
        self._layer.run(
            chain.owed, chain.hidden[:-1], [pages], [chain.length], [count], keys_only=True
        )
        return MtpChain(pages, chain.length + count, chain.hidden[-1:].clone())

    def saved(self, chain: MtpChain, tokens: int) -> SavedChain | None:
        """Return ``chain``, which follows ``tokens`` tokens, as it is saved; None where memory does
        not suffice. The chain itself still owes what it owed."""
        try:
            own = replace(chain, pages=_own_tip(self.layout, chain)) if chain.owed else chain
        except MemoryFull:
            return None
        paid = self.settle(own)
        return None if paid is None else SavedChain(self.layout, paid, tokens)

    def guess(self, work: Sequence[tuple[MtpChain, int]]) -> list[MtpChain]:
        """Run one id after each chain. Return chains whose last hidden state predicts the id that
        follows it.

        They share nothing that others write: a guess may be dropped at any time. Raises
        ``MemoryFull``.
        """
        ids = [i for chain, token in work for i in (*chain.owed, token)]
        times = [len(chain.owed) + 1 for chain, _ in work]
        tables = [
            grow(self.layout, chain.length, _own_tip(self.layout, chain), time, [])
            for (chain, _), time in zip(work, times, strict=True)
        ]
        hidden = self._layer.run(
            ids,
            torch.cat([chain.hidden for chain, _ in work]),
            tables,
            [chain.length for chain, _ in work],
            times,
        )
        ends = list(accumulate(times))
        return [
            MtpChain(pages, chain.length + time, hidden[end - 1 : end])
            for (chain, _), pages, time, end in zip(work, tables, times, ends, strict=True)
        ]


def _own_tip(layout: Layout, chain: MtpChain) -> tuple[Page, ...]:
    """Return the chain's pages with a copy of the last one, if that is not full."""
    used = chain.length % PAGE
    if not used:
        return chain.pages
    copy = layout.copied(chain.pages[-1], used)
    copy.filled = used
    return (*chain.pages[:-1], copy)
