"""The MTP layer on the compiled CPU path: one call for all rows."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.linear import embed
from kernels.linear.native import Matrix
from model.hybrid.cpu import NativeModel, place_rows
from model.state.pages import Page

_PTR = ctypes.c_void_p


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
        """Return ``[rows, vocab]`` in float32 from ``hidden [rows, hidden]``, row by row."""
        return self._main.logits(hidden)
