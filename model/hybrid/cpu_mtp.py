"""The MTP layer on the compiled CPU path: one call for all rows.

In small models the head is a third of all weights, so a guess by all of it would cost a third of a
pass. Guesses are therefore made among the ids that are used most (FR-Spec, Zhao et al., 2025): a
byte-pair vocabulary is numbered in the order in which its pairs were joined, most frequent first,
and special tokens come last. What is sampled is sampled from the whole head as ever.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.linear import Part, QuantizedWeight, StoredRows, Weight, embed
from kernels.linear.formats import BLOCK
from kernels.linear.native import Matrix, matrices
from model.hybrid.cpu import NativeModel, place_rows
from model.state.pages import Page

_PTR = ctypes.c_void_p
_FREQUENT, _SPECIAL = 65_536, 1_024
"""So many ids at the beginning and at the end of a large vocabulary are guessed."""


class _Mtp(ctypes.Structure):
    """``struct Mtp`` of ``kernels/native/src/mtp.h``."""

    _fields_ = (("embedding_norm", _PTR), ("hidden_norm", _PTR), ("project", Matrix))


class NativeMtp:
    """The MTP layer of the model that ``main`` runs, which must have one. One thread at a time may
    call it."""

    def __init__(self, main: NativeModel) -> None:
        head = main.model.mtp
        assert head is not None, "this checkpoint has no MTP layer"
        self._main = main
        self._layer = main.network_of([head.block], head.norm)
        self._head = _Mtp(
            main.scale(head.embedding_norm), main.scale(head.hidden_norm), main.one(head.project)
        )
        listed = shortlist(main.model.head)
        self._short = [matrix for part, _ in listed for matrix in matrices(part)]
        self.ids = tuple(i for _, ids in listed for i in ids)

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
        """Run ``mtp.GuessLayer.run``."""
        x = embed(torch.tensor(ids), self._main.model.embedding).float()
        out = hidden.contiguous().clone()
        kept: list[object] = []
        nothing = [None] * len(times)
        given = self._main.batch(times, starts, nothing, nothing, kept)
        place_rows(given, [[page.data for page in table] for table in tables], x, out, kept)
        given.keys_only = keys_only
        call = self._main.library.call
        layer, at = ctypes.addressof(self._layer), ctypes.addressof(given)
        given.scratch = self._main.room(call.tenuto_mtp_scratch(layer, at)).data_ptr()
        call.tenuto_mtp(layer, ctypes.addressof(self._head), at)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Return ``[rows, ids]`` in float32 from ``hidden [rows, hidden]``, row by row."""
        return self._main.products(self._short, hidden)


def shortlist(head: Weight) -> list[tuple[Weight, range]]:
    """Return the parts of ``head [vocab, hidden]`` by which guesses are made, without a copy, and
    the ids that they are of: all of a small vocabulary, or of a head that cannot be cut."""
    vocab = head.shape[0]
    first, last = range(_FREQUENT), range((vocab - _SPECIAL) // BLOCK * BLOCK, vocab)
    found: list[tuple[Weight, range]] = []
    for ids in (first, last) if last.start > first.stop else ():
        part = _cut(head, ids)
        if part is not None:
            found.append((part, ids))
    return found if len(found) == 2 else [(head, range(vocab))]


def _cut(head: Weight, ids: range) -> Part | None:
    """Return rows ``ids`` of ``head``, which stays as it is; None where that needs a copy."""
    if isinstance(head, Tensor):
        return head[ids.start : ids.stop]
    if isinstance(head, QuantizedWeight):
        return head.rows(ids.start, ids.stop)
    if isinstance(head, StoredRows):
        return StoredRows(head.kind, head.inputs, head.data[ids.start : ids.stop])
    return None
