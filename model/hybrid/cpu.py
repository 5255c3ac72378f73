"""A ``HybridModel`` as one call of the compiled CPU path for each pass.

It computes what ``HybridModel.hidden`` does, with intermediate values in float32 throughout. A row
of a pass over several sequences has the same bits whatever the other rows are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.backend import KernelError
from kernels.linear import Weight
from kernels.linear.native import Matrix, matrices
from kernels.native import Native, native
from model.checkpoint.config import ModelConfig
from model.hybrid.attention import Attention
from model.hybrid.deltanet import DeltaNet
from model.hybrid.experts import Experts
from model.hybrid.layers import DecoderLayer, FeedForward, Norm
from model.hybrid.model import HybridModel
from model.state.pages import PAGE
from model.state.passes import Pass

_KERNEL_PAGE = 256
_JOINED = 4
"""Matrices of different forms that one projection may have (``JOINED`` of ``forward.h``)."""
_I64, _PTR = ctypes.c_int64, ctypes.c_void_p


class _Layer(ctypes.Structure):
    """``struct Layer`` of ``kernels/native/src/forward.h``."""

    _fields_ = (
        ("kind", _I64),
        ("input_norm", _PTR),
        ("post_norm", _PTR),
        ("in_proj", Matrix * _JOINED),
        ("out_proj", Matrix),
        ("gate_up", Matrix * 2),
        ("down", Matrix),
        ("conv", _PTR),
        ("decay_rate", _PTR),
        ("dt_bias", _PTR),
        ("norm", _PTR),
        ("q_norm", _PTR),
        ("k_norm", _PTR),
        ("experts", _PTR),
    )


class _Model(ctypes.Structure):
    """``struct Model`` of the same file."""

    _fields_ = (
        *((name, _I64) for name in ("layer_count", "hidden", "intermediate")),
        *((name, _I64) for name in ("heads", "kv_heads", "head_dim", "rotary")),
        *((name, _I64) for name in ("key_heads", "value_heads", "key_dim", "value_dim", "width")),
        *((name, _I64) for name in ("bf16", "delta_layers", "attention_layers")),
        ("eps", ctypes.c_double),
        ("magnitude", ctypes.c_double),
        *((name, _PTR) for name in ("norm", "speed", "axis", "layers")),
    )


class Batch(ctypes.Structure):
    """``struct Batch`` of the same file: the rows of one pass."""

    _fields_ = (
        *((name, _I64) for name in ("sequences", "exact_rows", "max_pages", "threads")),
        *((name, _PTR) for name in ("time", "start", "conv_in", "conv_out")),
        *((name, _PTR) for name in ("recurrent_in", "recurrent_out", "pages")),
        *((name, _PTR) for name in ("x", "hidden", "scratch", "trail")),
        ("trail_rows", _I64),
        ("keys_only", _I64),
        ("positions", _PTR),
        ("eight", _I64),
    )


def why_not(config: ModelConfig, dtype: torch.dtype, device: str = "cpu") -> str | None:
    """Why torch must run such a model, in one line; None if the compiled path can."""
    c = config
    if not device.startswith("cpu"):
        return f"the model is on {device}"
    if dtype not in (torch.float32, torch.bfloat16):
        return f"it does not compute in {dtype}"
    if c.head_dim % 32 or c.head_dim > 1024:
        return f"head dimension {c.head_dim} is no multiple of 32 up to 1024"
    if c.linear_key_head_dim % 16 or c.linear_value_head_dim % 16:
        return "a DeltaNet head dimension is no multiple of 16"
    if c.hidden_size % 32 or c.intermediate_size % 32 or c.linear_value_dim % 32:
        return "a layer width is no multiple of 32"
    if c.experts is not None and c.experts.intermediate_size % 32:
        return "the width of an expert is no multiple of 32"
    if PAGE != _KERNEL_PAGE:
        return f"pages have {PAGE} positions"
    if native() is None:
        return "it is not built (make setup, with a C++ compiler)"
    return None


class NativeModel:
    """``model`` ready to run. Raises ``KernelError`` where ``why_not`` gives a reason.

    It keeps the memory that a pass works in, so one thread at a time may call it.
    """

    def __init__(self, model: HybridModel, library: Native | None = None) -> None:
        reason = why_not(model.config, model.embedding.dtype, model.embedding.device.type)
        found = library or native()
        if reason is not None or found is None:
            raise KernelError(f"the compiled CPU path cannot run this model: {reason}")
        self.library = found
        self.model = model
        self._kept: list[object] = []
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self._head = matrices(model.head)
        self._native = self.network_of(model.blocks, model.norm)

    def network_of(self, blocks: Sequence[DecoderLayer], norm: Norm) -> _Model:
        """Return what the library runs as a network of ``blocks`` and a last ``norm``."""
        c = self.model.config
        kinds = [isinstance(block.mixer, Attention) for block in blocks]
        layers = (_Layer * len(blocks))(*(self._layer(block) for block in blocks))
        self._kept.append(layers)
        return _Model(
            len(blocks),
            c.hidden_size,
            c.intermediate_size,
            c.num_attention_heads,
            c.num_key_value_heads,
            c.head_dim,
            c.rotary_dim,
            c.linear_num_key_heads,
            c.linear_num_value_heads,
            c.linear_key_head_dim,
            c.linear_value_head_dim,
            c.linear_conv_kernel_dim,
            self.model.embedding.dtype == torch.bfloat16,
            kinds.count(False),
            kinds.count(True),
            c.rms_norm_eps,
            c.rope_magnitude,
            self.scale(norm),
            self._floats(self.model.speed),
            self.model.axis.data_ptr(),
            ctypes.addressof(layers),
        )

    @property
    def level(self) -> str:
        """The level of instructions in use."""
        return self.library.level

    def hidden(self, ids: Tensor, running: Pass) -> Tensor:
        """Run ``HybridModel.hidden`` in a pass: return ``[batch, time, hidden]`` in float32."""
        batch, time = ids.shape
        rows = self.rows(ids.reshape(-1), running, exact=batch > 1)
        return rows.reshape(batch, time, -1)

    def rows(
        self, ids: Tensor, running: Pass, *, exact: bool = True, trail: Tensor | None = None
    ) -> Tensor:
        """Return the hidden states ``[rows, hidden]`` of ``ids [rows]``, one sequence after the
        other.

        With ``exact``, and up to 16 tokens a sequence, a row has the bits that it has if its token
        runs alone. ``trail [delta_layers, rows or more, trail_width]``, in float32, is written for
        ``replay``.
        """
        x = running.embed(ids, self.model.embedding).float()
        out = torch.empty_like(x)
        kept: list[object] = []
        given = self.batch(running.times, running.starts, running.sources, running.targets, kept)
        place_rows(given, running.pages, x, out, kept)
        given.exact_rows = exact
        if running.positions is not None:
            positions = running.positions.T.contiguous()
            kept.append(positions)
            given.positions = positions.data_ptr()
        if trail is not None:
            given.trail, given.trail_rows = trail.data_ptr(), trail.shape[1]
        call, at = self.library.call, ctypes.addressof(given)
        model = ctypes.addressof(self._native)
        given.scratch = self.room(call.tenuto_forward_scratch(model, at)).data_ptr()
        call.tenuto_forward(model, at)
        return out

    @property
    def trail_width(self) -> int:
        """Numbers that a DeltaNet layer leaves on the trail for a token."""
        c = self.model.config
        return c.conv_dim + c.linear_value_dim + 2 * c.linear_num_value_heads

    def replay(
        self,
        trail: Tensor,
        first: int,
        count: int,
        source: tuple[Tensor, ...] | None,
        target: tuple[Tensor, ...],
    ) -> None:
        """Write to ``target`` the slot after ``count`` of the rows, from ``first`` on, that a pass
        ran from ``source`` and kept on ``trail``. Any thread may call it.
        """
        kept: list[object] = []
        given = self.batch([count], [0], [source], [target], kept)
        given.trail, given.trail_rows = trail[0, first].data_ptr(), trail.shape[1]
        call, at = self.library.call, ctypes.addressof(given)
        model = ctypes.addressof(self._native)
        # A scratch of its own, since a pass may be under way.
        scratch = torch.empty(call.tenuto_forward_scratch(model, at), dtype=torch.uint8)
        given.scratch = scratch.data_ptr()
        call.tenuto_replay(model, at)

    def batch(
        self,
        times: Sequence[int],
        starts: Sequence[int],
        sources: Sequence[tuple[Tensor, ...] | None],
        targets: Sequence[tuple[Tensor, ...] | None],
        kept: list[object],
    ) -> Batch:
        """Fill in the part that passes and replays share; valid while ``kept`` is."""
        return Batch(
            sequences=len(times),
            threads=torch.get_num_threads(),
            time=_address((_I64 * len(times))(*times), kept),
            start=_address((_I64 * len(times))(*starts), kept),
            conv_in=_address(_slots(sources, 0), kept),
            conv_out=_address(_slots(targets, 0), kept),
            recurrent_in=_address(_slots(sources, 1), kept),
            recurrent_out=_address(_slots(targets, 1), kept),
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Return ``[rows, vocab]`` in float32 from ``hidden [rows, hidden]``, row by row."""
        return self.products(self._head, hidden)

    def products(self, stacked: Sequence[Matrix], hidden: Tensor) -> Tensor:
        """Return ``[rows, outputs]`` of the matrices ``stacked`` in float32 from ``hidden [rows,
        hidden]``, row by row."""
        rows, threads = hidden.float().contiguous(), torch.get_num_threads()
        parts = []
        for matrix in stacked:
            out = torch.empty(len(rows), sum(matrix.rows))
            at = ctypes.addressof(matrix)
            size = self.library.call.tenuto_product_scratch(at, len(rows), threads)
            self.library.call.tenuto_product(
                at,
                rows.data_ptr(),
                len(rows),
                out.data_ptr(),
                True,
                self.room(size).data_ptr(),
                threads,
            )
            parts.append(out)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def room(self, size: int) -> Tensor:
        """Return at least ``size`` bytes to work in, until the next call."""
        if self._scratch.numel() < size:
            self._scratch = torch.empty(size, dtype=torch.uint8)
        return self._scratch

    def _layer(self, block: DecoderLayer) -> _Layer:
        mixer, ff = block.mixer, block.feed_forward
        made = _Layer(
            kind=isinstance(mixer, Attention),
            input_norm=self.scale(block.input_norm),
            post_norm=self.scale(block.post_norm),
        )
        if isinstance(mixer, Attention):
            made.q_norm, made.k_norm = self.scale(mixer.q_norm), self.scale(mixer.k_norm)
            out_proj = mixer.o_proj
        else:
            assert isinstance(mixer, DeltaNet)
            made.conv = self._floats(mixer.conv)
            made.decay_rate = self._floats(mixer.decay_rate)
            made.dt_bias = self._floats(mixer.dt_bias)
            made.norm = self._floats(mixer.norm)
            out_proj = mixer.out_proj
        made.out_proj = self.one(out_proj)
        _fill(made.in_proj, mixer.in_proj)
        if isinstance(ff, Experts):
            experts = ff.native()
            self._kept.append(experts)
            made.experts = experts.address
        else:
            assert isinstance(ff, FeedForward)
            made.down = self.one(ff.down)
            _fill(made.gate_up, ff.gate_up)
        return made

    def one(self, weight: Weight) -> Matrix:
        """Return ``weight`` as one matrix. Raises ``KernelError`` if it has several."""
        found = matrices(weight)
        if len(found) > 1:
            raise KernelError("the compiled path takes this projection in one piece")
        return found[0]

    def scale(self, norm: Norm) -> int:
        """Return the address of what ``norm`` multiplies with."""
        return self._floats(norm.weight + 1)

    def _floats(self, tensor: Tensor) -> int:
        """Return the address of ``tensor`` in float32, kept as long as the model."""
        kept = tensor.detach().float().contiguous()
        self._kept.append(kept)
        return kept.data_ptr()


def place_rows(
    given: Batch, tables: Sequence[Sequence[Tensor]], x: Tensor, out: Tensor, kept: list[object]
) -> None:
    """Tell ``given`` its rows in and out and each sequence's pages; valid while ``kept`` is."""
    pages = max((len(table) for table in tables), default=0)
    addresses = (_PTR * (len(tables) * pages))()
    for row, table in enumerate(tables):
        for column, page in enumerate(table):
            addresses[row * pages + column] = page.data_ptr()
    given.max_pages = pages
    given.eight = any(page.dtype == torch.int8 for table in tables for page in table[:1])
    given.pages = _address(addresses, kept)
    given.x, given.hidden = x.data_ptr(), out.data_ptr()


def _fill(places: ctypes.Array[Matrix], weight: Weight) -> None:
    """Write the matrices of a projection side by side. Raises ``KernelError`` if they are more."""
    found = matrices(weight)
    if len(found) > len(places):
        raise KernelError(f"the compiled path takes a projection in {len(places)} pieces")
    for index, matrix in enumerate(found):
        places[index] = matrix


def _slots(slots: Sequence[tuple[Tensor, ...] | None], part: int) -> ctypes.Array[ctypes.c_void_p]:
    """Return the addresses of one tensor of each slot; null where there is none yet."""
    return (_PTR * len(slots))(*[None if s is None else s[part].data_ptr() for s in slots])


def _address(
    array: ctypes.Array[ctypes.c_int64] | ctypes.Array[ctypes.c_void_p], kept: list[object]
) -> int:
    kept.append(array)
    return ctypes.addressof(array)
