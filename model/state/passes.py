"""One pass over the network: which memory each layer reads and where it writes.

A pass runs new tokens of every one of its sequences. Room for all it will write is taken
before the first layer runs, so that a shortage shows while nothing has changed; the new states are
complete when the last layer has run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kernels.kv_cache import in_bytes, parts, quantise
from kernels.linear import Table, embed
from model.state.pages import PAGE, HybridState, Layout, Page


class DeltaMemory:
    """One DeltaNet layer's memory during a pass.

    ``sources`` and ``targets`` are, for each sequence, the layer's ``(conv, recurrent)``: those to
    read (None: zeros) and those to write.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Tensor, Tensor] | None],
        targets: Sequence[tuple[Tensor, Tensor]],
    ) -> None:
        self.sources = sources
        self.targets = targets

    def read(self) -> tuple[Tensor, Tensor]:
        """Return the convolution's inputs ``[batch, width - 1, conv_dim]`` and the delta rule's
        states ``[batch, value_heads, key_dim, value_dim]``.
        """
        pairs = [
            (torch.zeros_like(target[0]), torch.zeros_like(target[1])) if source is None else source
            for source, target in zip(self.sources, self.targets, strict=True)
        ]
        if len(pairs) == 1:
            return pairs[0][0][None], pairs[0][1][None]
        return torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])

    def write(self, conv: Tensor, recurrent: Tensor) -> None:
        """Keep what the layer ends with, shaped as ``read`` gives it."""
        for row, (own_conv, own_recurrent) in enumerate(self.targets):
            own_conv.copy_(conv[row])
            own_recurrent.copy_(recurrent[row])


class AttentionMemory:
    """One attention layer's memory during a pass.

    ``pages`` are each sequence's page tensors, ``layer`` this layer's place in them, and
    ``lengths`` how many positions of each hold keys once ``append`` was called.
    """

    def __init__(
        self, layer: int, pages: Sequence[Sequence[Tensor]], starts: Sequence[int], time: int
    ) -> None:
        self.layer = layer
        self.pages = pages
        self.starts = starts
        self.lengths = [start + time for start in starts]

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Add ``keys`` and ``values [batch, time, kv_heads, dim]`` at the end."""
        both = torch.stack([keys, values], dim=1).transpose(2, 3)  # [batch, 2, kv_heads, time, dim]
        kind, dim = self.pages[0][0].dtype, keys.shape[-1]
        rows = quantise(both, kind) if in_bytes(self.pages[0][0]) else (both,)
        for row, (start, end) in enumerate(zip(self.starts, self.lengths, strict=True)):
            at = start
            while at < end:
                offset = at % PAGE
                count = min(PAGE - offset, end - at)
                page = self.pages[row][at // PAGE][self.layer]
                held = parts(page, dim) if in_bytes(page) else (page,)
                for own, given in zip(held, rows, strict=True):
                    own[:, :, offset : offset + count] = given[
                        row, :, :, at - start : at - start + count
                    ]
                at += count


LayerMemory = DeltaMemory | AttentionMemory


@dataclass(frozen=True)
class Seen:
    """Positions and embeddings of one sequence's tokens in a pass, where pictures are involved.

    ``positions [3, time]`` are in time, height and width; ``rows`` are embeddings ``[n, hidden]``
    that take the place of those of the ids from an index on. ``shift`` and ``image`` are those of
    the state after the pass.
    """

    positions: Tensor
    rows: tuple[tuple[int, Tensor], ...]
    shift: int
    image: str


class Pass:
    """One pass over each of ``states``, of ``time`` tokens: one number, or each its own.

    ``times`` is how many tokens each runs, ``layers`` is the memory of each layer in turn,
    ``starts`` where each sequence goes on, ``sources`` and ``targets`` the tensors of each
    sequence's slot to read (None: zeros) and to write, ``pages`` those of its pages. With pictures
    in a sequence (``seen``), ``positions [3, rows]`` are those of all rows; None is plain text. Run
    it inside ``layout.memory.passing()``. Raises ``MemoryFull`` if there is no room.
    """

    def __init__(
        self,
        layout: Layout,
        kinds: Sequence[str],
        states: Sequence[HybridState],
        time: int | Sequence[int],
        seen: Sequence[Seen | None] = (),
    ) -> None:
        self.starts = [state.length for state in states]
        self.times = [time] * len(states) if isinstance(time, int) else list(time)
        self._kinds = kinds
        self.sources = [None if s.slot is None else s.slot.tensors for s in states]
        slots = [layout.new_slot() for _ in states]
        claims: list[tuple[Page, int]] = []
        try:
            tables = [
                grow(layout, state.length, state.pages, time, claims)
                for state, time in zip(states, self.times, strict=True)
            ]
            self.targets = [slot.tensors for slot in slots]
            self.pages = [[page.data for page in table] for table in tables]
        except BaseException:
            # Nothing has been written: what was taken is as free as before.
            for page, filled in reversed(claims):
                page.filled = filled
            raise
        known = seen or [None] * len(states)
        self.positions, self._images = _joined(self.starts, self.times, known)
        self._after = tuple(
            HybridState(
                layout,
                state.length + time,
                slot,
                table,
                shift=one.shift if one else 0,
                image=one.image if one else "",
            )
            for state, time, slot, table, one in zip(
                states, self.times, slots, tables, known, strict=True
            )
        )
        # Held here until the pass is over: what is read must not be parked or freed meanwhile.
        self._before = tuple(states)

    @cached_property
    def layers(self) -> list[LayerMemory]:
        """The memory of each layer, of one sequence or of single tokens of several."""
        time = self.times[0]
        assert len(self.times) == 1 or set(self.times) == {1}, "only single tokens run in one pass"
        read = [None if source is None else _layers(source) for source in self.sources]
        written = [_layers(target) for target in self.targets]
        layers: list[LayerMemory] = []
        deltas = attentions = 0
        for kind in self._kinds:
            if kind == "full_attention":
                layers.append(AttentionMemory(attentions, self.pages, self.starts, time))
                attentions += 1
            else:
                layers.append(
                    DeltaMemory(
                        [None if source is None else source[deltas] for source in read],
                        [target[deltas] for target in written],
                    )
                )
                deltas += 1
        return layers

    @property
    def sees(self) -> bool:
        """True if a picture is among the rows."""
        return bool(self._images)

    def embed(self, ids: Tensor, embedding: Table) -> Tensor:
        """Return the embeddings ``[..., hidden]`` of ``ids``, those of pictures included."""
        if not self._images:
            return embed(ids, embedding)
        x = embed(ids.clamp(min=0), embedding)
        flat = x.view(-1, x.shape[-1])
        for row, rows in self._images:
            flat[row : row + len(rows)] = rows.to(flat)
        return x

    def states(self) -> tuple[HybridState, ...]:
        """Return the states after the pass; complete once every layer has run."""
        return self._after


def _joined(
    starts: Sequence[int], times: Sequence[int], seen: Sequence[Seen | None]
) -> tuple[Tensor | None, list[tuple[int, Tensor]]]:
    """Return the positions ``[3, rows]`` of all sequences, and the rows that pictures take."""
    if not any(seen):
        return None, []
    positions, images, row = [], [], 0
    for start, time, one in zip(starts, times, seen, strict=True):
        plain = torch.arange(start, start + time).expand(3, -1)
        positions.append(plain if one is None else one.positions)
        images += [] if one is None else [(row + at, rows) for at, rows in one.rows]
        row += time
    return torch.cat(positions, dim=1), images


def _layers(slot: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
    """Return a slot's ``(conv, recurrent)`` layer by layer."""
    conv, recurrent = slot
    return list(zip(conv.unbind(), recurrent.unbind(), strict=True))


def grow(
    layout: Layout,
    length: int,
    pages: tuple[Page, ...],
    time: int,
    claims: list[tuple[Page, int]],
) -> tuple[Page, ...]:
    """Return ``pages``, which hold ``length`` positions, with room for ``time`` more. Those are
    taken at once: added to ``claims``, with how far the page was filled before.

    Only the sequence that has filled a page furthest may go on in it: what lies behind another's
    length belongs to somebody. The others go on in a copy. Raises ``MemoryFull``.
    """
    end = length + time
    used = length % PAGE
    if used:
        tip = pages[-1]
        if tip.filled != used:
            copy = layout.copied(tip, used)
            tip, pages = copy, (*pages[:-1], copy)
        claims.append((tip, tip.filled))
        tip.filled = min(PAGE, used + time)
    missing = -(-end // PAGE) - len(pages)
    if missing:
        fresh = [layout.new_page() for _ in range(missing)]
        for page in fresh:
            page.filled = PAGE
        fresh[-1].filled = (end - 1) % PAGE + 1
        pages = (*pages, *fresh)
    return pages
