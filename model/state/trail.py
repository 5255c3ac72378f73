"""The states inside a pass over several tokens of a sequence.

A pass writes the state after its last token. Those before it are not written: the pass keeps what
its DeltaNet layers took in, a hundredth of a state for a token, and the state after any of its
tokens is made from that and from the state before the pass, in the same steps and so with the same
bits, if somebody goes on from there. Keys and values need nothing: those behind a state's length
do not count, and as soon as it is certain that nobody will use them their place is free again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.network import State
from model.state.memory import Block
from model.state.mtp_chain import ChainRows
from model.state.pages import PAGE, HybridState, Layout, MtpChain

Replay = Callable[[Tensor, int, int, "tuple[Tensor, ...] | None", "tuple[Tensor, ...]"], None]
"""See ``native.NativeModel.replay``."""


_ROOM = 8
"""Room is taken for so many rows at once, so that it can be used again."""


@dataclass(frozen=True)
class Rows:
    """The trail of all rows of a pass: float32 ``[delta_layers, rows and more, width]``."""

    block: Block
    replay: Replay

    @classmethod
    def of(cls, layout: Layout, replay: Replay, rows: int, width: int) -> Rows:
        """Room for ``rows``, to be filled by the pass. Raises ``MemoryFull``."""
        room = -(-rows // _ROOM) * _ROOM
        shape = (layout.recurrent[0], room, width)

        def make() -> tuple[Tensor, ...]:
            return (torch.empty(shape, dtype=torch.float32),)

        size = shape[0] * room * width * 4
        return cls(layout.memory.take(make, size, f"trail {room}"), replay)

    @property
    def trail(self) -> Tensor:
        """The tensor."""
        return self.block.tensors[0]


class HybridTrail:
    """``network.Trail`` of the tokens that took ``before`` to ``after``, the rows of the pass from
    ``first`` on. ``chained`` is what they add to the MTP layer's memory."""

    def __init__(
        self,
        before: HybridState,
        after: HybridState,
        kept: Rows,
        first: int,
        chained: ChainRows | None = None,
    ) -> None:
        self.before = before
        self._kept = kept
        self._first = first
        self._chained = chained
        self._count = after.length - before.length
        self._after = replace(after, chain=self._chain(self._count))
        self._reached = 1
        self._closed = False
        # The slot that the pass wrote: if nobody goes on from its end, the state is made there.
        self._free = after.slot
        self._lock = threading.Lock()

    def take(self, count: int) -> State | None:
        """Return the state after ``count`` tokens, or None if it was given up."""
        with self._lock:
            if count > self._reached:
                if self._closed:
                    return None
                self._reached = count
            if count < self._count:
                return InnerState(self, count)
            self._free = None
            return self._after

    def _chain(self, count: int) -> MtpChain | None:
        """Return the MTP layer's memory after ``count`` tokens."""
        return None if self._chained is None else self._chained.after(count)

    def blocks(self) -> set[Block]:
        """Return the blocks that it keeps, for accounts."""
        ends = (self.before, self._after)
        slots = {state.slot for state in ends if state.slot is not None}
        pages = [page for state in ends for page in state.all_pages]
        return slots | {page.block for page in pages} | {self._kept.block}

    def settle(self, count: int) -> HybridState:
        """Make the state after ``count`` tokens, which somebody took. Raises ``MemoryFull``."""
        layout, length = self.before.layout, self.before.length + count
        with self._lock, torch.inference_mode(), layout.memory.passing():
            self._close()
            slot = self._free or layout.new_slot()
            source = None if self.before.slot is None else self.before.slot.tensors
            self._kept.replay(self._kept.trail, self._first, count, source, slot.tensors)
            self._free = None
            pages = self._after.pages[: -(-length // PAGE)]
            return HybridState(layout, length, slot, pages, self._chain(count), self.before.shift)

    def _close(self) -> None:
        """Give the positions that nobody has reached free. The lock is held.

        Nobody can have gone on behind them: that takes the state at the end, which then is reached.
        """
        if self._closed:
            return
        self._closed = True
        length = self.before.length + self._reached
        number = (length - 1) // PAGE
        page, first = self._after.pages[number], number * PAGE
        if page.filled == min(PAGE, self._after.length - first):
            page.filled = length - first


class InnerState:
    """The state after some of a trail's tokens; it is made when it is first needed."""

    def __init__(self, trail: HybridTrail, count: int) -> None:
        self.length = trail.before.length + count
        self._trail: HybridTrail | None = trail
        self._count = count
        self._made: HybridState | None = None
        self._lock = threading.Lock()

    def settled(self) -> HybridState:
        """Return the state itself, made if need be. Raises ``MemoryFull``."""
        with self._lock:
            if self._made is None:
                assert self._trail is not None
                self._made = self._trail.settle(self._count)
                self._trail = None
            return self._made

    def tensors(self) -> dict[str, Tensor]:
        return self.settled().tensors()

    def span(self, start: int, end: int) -> dict[str, Tensor]:
        return self.settled().span(start, end)

    def park(self) -> None:
        self.settled().park()


def settle(state: State) -> HybridState:
    """Return a ``HybridNetwork``'s ``state`` with all parts in place. Raises ``MemoryFull``."""
    if isinstance(state, InnerState):
        return state.settled()
    assert isinstance(state, HybridState)
    return state
