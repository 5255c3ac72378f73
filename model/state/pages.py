"""A hybrid network's memory of a sequence: a DeltaNet slot and pages of keys and values.

Both are values. A pass reads one slot and writes another, so a snapshot, a fork, or the state a
failed pass started from, is that slot kept. Pages fill up from the front and are never changed
where they are filled: sequences with the same beginning name the same pages, and only a page that
two of them would go on filling differently is copied, at most once for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels.kv_cache import SCALE_BYTES, dequantise, in_bytes, parts, quantise
from kernels.linear import Table
from model.checkpoint.config import ModelConfig
from model.errors import StateError
from model.state.memory import Block, StateMemory

PAGE = 256
"""Positions in a page."""


@dataclass(frozen=True)
class Layout:
    """The shapes of a network's state, and where it lives.

    A page is ``[attention_layers, 2, kv_heads, PAGE, head_dim]``, keys then values, in ``kv``: the
    dtype of the weights, or 8 bits with a scale for each row (``kernels.kv_cache``). A slot is the
    last inputs of the short convolutions ``[delta_layers, width - 1, conv_dim]`` in that dtype, and
    the delta rule's states ``[delta_layers, value_heads, key_dim, value_dim]``, in float32 whatever
    the weights are.
    """

    page: tuple[int, ...]
    conv: tuple[int, ...]
    recurrent: tuple[int, ...]
    dtype: torch.dtype
    kv: torch.dtype
    device: torch.device
    memory: StateMemory

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        like: Table,
        memory: StateMemory | None = None,
        kv: torch.dtype | None = None,
    ) -> Layout:
        """For ``config``, in the dtype and on the device of ``like``; keys and values in ``kv``."""
        deltas = config.layer_types.count("linear_attention")
        return cls(
            page=(
                len(config.layer_types) - deltas,
                2,
                config.num_key_value_heads,
                PAGE,
                config.head_dim,
            ),
            conv=(deltas, config.linear_conv_kernel_dim - 1, config.conv_dim),
            recurrent=(
                deltas,
                config.linear_num_value_heads,
                config.linear_key_head_dim,
                config.linear_value_head_dim,
            ),
            dtype=like.dtype,
            kv=kv or like.dtype,
            device=like.device,
            memory=memory or StateMemory(),
        )

    def stored_in(self, kv: torch.dtype) -> Layout:
        """Return the same with keys and values in ``kv``."""
        return replace(self, kv=kv)

    @property
    def page_bytes(self) -> int:
        """Of one page."""
        return _elements(self._stored) * self.kv.itemsize

    @property
    def _stored(self) -> tuple[int, ...]:
        """The shape of a page's tensor."""
        *outer, count, dim = self.page
        return self.page if self.kv == self.dtype else (*outer, count * (dim + SCALE_BYTES))

    @property
    def slot_bytes(self) -> int:
        """Of one slot."""
        return _elements(self.conv) * self.dtype.itemsize + _elements(self.recurrent) * 4

    def new_page(self) -> Page:
        """Make an empty page; its unfilled part is undefined. Raises ``MemoryFull``."""

        def make() -> tuple[Tensor, ...]:
            return (torch.empty(self._stored, dtype=self.kv, device=self.device),)

        # The MTP layer's pages are smaller, and must not take over those of the other layers.
        kind = f"page {self._stored} {self.kv}"
        return Page(self.memory.take(make, self.page_bytes, kind), self.page[-1])

    def copied(self, page: Page, used: int) -> Page:
        """Make a page with the first ``used`` positions of ``page``. Raises ``MemoryFull``."""
        copy = self.new_page()
        for own, given in zip(copy.parts, page.parts, strict=True):
            own[:, :, :, :used] = given[:, :, :, :used]
        return copy

    def new_slot(self) -> Block:
        """Make a slot whose content is undefined. Raises ``MemoryFull``."""

        def make() -> tuple[Tensor, ...]:
            return (
                torch.empty(self.conv, dtype=self.dtype, device=self.device),
                torch.empty(self.recurrent, dtype=torch.float32, device=self.device),
            )

        return self.memory.take(make, self.slot_bytes, "slot")


@dataclass(eq=False)
class Page:
    """A block of ``PAGE`` positions, of which the first ``filled`` are taken for good."""

    block: Block
    dim: int
    filled: int = 0

    @property
    def data(self) -> Tensor:
        """The whole page, see ``Layout``."""
        return self.block.tensors[0]

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """Keys and values ``[attention_layers, 2, kv_heads, PAGE, head_dim]``, or their codes and
        the scales ``[attention_layers, 2, kv_heads, PAGE]``."""
        data = self.data
        return parts(data, self.dim) if in_bytes(data) else (data,)


@dataclass(frozen=True)
class MtpChain:
    """The MTP layer's keys and values of a sequence, from the token on at which it was begun.

    Position ``p`` belongs to the main network's hidden state at one token and to the id that came
    after it. ``pages`` hold ``length`` positions. ``hidden [owed + 1, hidden]`` in float32 are the
    hidden states that have no position yet, and ``owed`` the ids after all of them but the last.
    """

    pages: tuple[Page, ...]
    length: int
    hidden: Tensor
    owed: tuple[int, ...] = ()

    @classmethod
    def begin(cls, ids: Sequence[int], hidden: Tensor) -> MtpChain:
        """Begin with ``ids`` (at least one), whose hidden states are ``[ids, hidden]``."""
        return cls((), 0, hidden, tuple(ids[1:]))

    def extended(self, ids: Sequence[int], hidden: Tensor) -> MtpChain:
        """Return the chain after ``ids``, whose hidden states are ``[ids, hidden]``."""
        joined = torch.cat([self.hidden, hidden])
        return MtpChain(self.pages, self.length, joined, (*self.owed, *ids))


@dataclass(frozen=True)
class HybridState:
    """The memory of all layers after ``length`` tokens. Without a slot, all of it is zero.

    ``chain`` is what an MTP layer needs to guess from here; it changes nothing that is said.
    ``shift`` is what text positions are ahead of the number of tokens: a picture takes fewer
    positions than tokens. ``image`` is the hash of a picture of which more tokens are to come.
    """

    layout: Layout
    length: int = 0
    slot: Block | None = None
    pages: tuple[Page, ...] = ()
    chain: MtpChain | None = None
    shift: int = 0
    image: str = ""

    @property
    def all_pages(self) -> tuple[Page, ...]:
        """The pages of the main layers and of the MTP layer."""
        return self.pages if self.chain is None else (*self.pages, *self.chain.pages)

    def tensors(self) -> dict[str, Tensor]:
        """Return ``conv`` and ``recurrent``, shaped as in ``Layout``, and ``shift [1]`` if any."""
        if self.slot is None:
            lay = self.layout
            conv = torch.zeros(lay.conv, dtype=lay.dtype, device=lay.device)
            return {"conv": conv, "recurrent": torch.zeros(lay.recurrent, device=lay.device)}
        conv, recurrent = self.slot.tensors
        shift = {"shift": torch.tensor([self.shift])} if self.shift else {}
        return {"conv": conv, "recurrent": recurrent, **shift}

    def span(self, start: int, end: int) -> dict[str, Tensor]:
        """Return ``kv [positions, attention_layers, 2, kv_heads, head_dim]`` of the positions, and
        for 8 bits the ``scales [positions, attention_layers, 2, kv_heads]`` of these codes."""
        return read_positions(self.layout, self.pages, start, end)

    def park(self) -> None:
        """Park the slot and those pages that nobody has used since this state was."""
        if self.slot is not None:
            last = self.slot.used_at
            blocks = [page.block for page in self.all_pages]
            self.layout.memory.park([self.slot, *(b for b in blocks if b.used_at <= last)])

    @classmethod
    def load(
        cls,
        layout: Layout,
        tensors: Mapping[str, Tensor],
        spans: Iterable[Mapping[str, Tensor]],
        length: int,
    ) -> HybridState:
        """Rebuild the state whose ``tensors()`` and, end to end, ``span()`` these are.

        Raises ``StateError`` if they do not fit the layout, ``MemoryFull`` if memory does not
        suffice.
        """
        conv, recurrent = tensors.get("conv"), tensors.get("recurrent")
        shift = tensors.get("shift", torch.tensor([0]))
        if (
            conv is None
            or recurrent is None
            or tensors.keys() - {"conv", "recurrent", "shift"}
            or (shift.shape, shift.dtype) != ((1,), torch.int64)
            or (conv.shape, conv.dtype) != (layout.conv, layout.dtype)
            or (recurrent.shape, recurrent.dtype) != (layout.recurrent, torch.float32)
        ):
            raise StateError("the saved DeltaNet state is not this model's")
        pages: list[Page] = []
        at = 0
        with layout.memory.passing():
            for span in spans:
                at = write_positions(layout, pages, at, span)
            if at != length:
                raise StateError(f"the saved state holds {at} positions, not {length}")
            if length == 0:
                return cls(layout)
            slot = layout.new_slot()
            for own, given in zip(slot.tensors, (conv, recurrent), strict=True):
                own.copy_(given)
        return cls(layout, length, slot, tuple(pages), shift=int(shift))


def read_positions(
    layout: Layout, pages: Sequence[Page], start: int, end: int
) -> dict[str, Tensor]:
    """Return positions ``start`` to ``end`` of ``pages``, shaped as ``HybridState.span`` says."""
    names = ("kv",) if layout.kv == layout.dtype else ("kv", "scales")
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for number in range(start // PAGE, -(-end // PAGE)):
        first = number * PAGE
        for name, part in zip(names, pages[number].parts, strict=True):
            cut = part[:, :, :, max(0, start - first) : end - first]
            found[name].append(cut.movedim(3, 0))
    if start == end:
        layers, two, heads, _, dim = layout.page
        kinds = {"kv": ((dim,), layout.kv), "scales": ((), torch.float32)}
        return {
            name: torch.empty(0, layers, two, heads, *kinds[name][0], dtype=kinds[name][1])
            for name in names
        }
    return {name: torch.cat(cuts) for name, cuts in found.items()}


def write_positions(layout: Layout, pages: list[Page], at: int, span: Mapping[str, Tensor]) -> int:
    """Write a span from position ``at`` on into ``pages``, which grow; return where it ends.

    Raises ``StateError`` if it does not fit the layout, ``MemoryFull`` if memory does not suffice.
    """
    rest = _in_form(layout, span)
    count = len(rest[0])
    done = 0
    while done < count:
        offset = at % PAGE
        if offset == 0:
            pages.append(layout.new_page())
        taken = min(PAGE - offset, count - done)
        for own, given in zip(pages[-1].parts, rest, strict=True):
            own[:, :, :, offset : offset + taken] = given[done : done + taken].movedim(0, 3)
        pages[-1].filled = offset + taken
        done, at = done + taken, at + taken
    return at


def _in_form(layout: Layout, span: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Return a saved span in the layout's form: kept to the bit if it is in that form, and made
    from its values if not. Raises ``StateError``."""
    layers, two, heads, _, dim = layout.page
    codes, scales = span.get("kv"), span.get("scales")
    shape = (layers, two, heads)
    fits = (
        codes is not None
        and span.keys() <= {"kv", "scales"}
        and codes.shape[1:] == (*shape, dim)
        and (scales is not None) == in_bytes(codes)
        and (codes.dtype == layout.dtype or in_bytes(codes))
        and (
            scales is None or (scales.shape, scales.dtype) == ((len(codes), *shape), torch.float32)
        )
    )
    if codes is None or not fits:
        raise StateError("the saved keys and values are not this model's")
    if codes.dtype == layout.kv:
        return (codes,) if scales is None else (codes, scales)
    plain = codes if scales is None else dequantise(codes, scales)
    return (plain.to(layout.kv),) if layout.kv == layout.dtype else quantise(plain, layout.kv)


def _elements(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
