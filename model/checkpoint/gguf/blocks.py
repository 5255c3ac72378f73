"""The block types of GGUF: bytes into integers, scales and additive terms.

Every type is ``weight = code * scale + term`` over groups of 16, 32 or more neighbours, some with
codes from a table. The layouts are ggml's; its tests here are gguf's own numpy readers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from kernels.linear import INT4, INT8, Code
from kernels.linear.ggml import E2M1, IQ4
from model.checkpoint.stored import Coded

Read = Callable[[Tensor], tuple[Tensor, Tensor, Tensor | None]]
"""From blocks ``[n, bytes]`` to codes ``[n, size]``, scales ``[n, groups]``, and terms or None."""


@dataclass(frozen=True)
class BlockType:
    """A type of block: ``size`` elements in ``nbytes`` bytes.

    ``code`` is how a quantised weight holds its integers. At most ``group`` elements share a scale.
    ``read`` is None for plain numbers of ``dtype``.
    """

    name: str
    size: int
    nbytes: int
    code: Code | None = None
    read: Read | None = None
    group: int = 32
    dtype: torch.dtype = torch.float32

    def coded(self, raw: Tensor) -> Coded:
        """Return rows of bytes ``[rows, row bytes]`` as integers."""
        assert self.read is not None
        rows = len(raw)
        codes, scales, term = self.read(raw.reshape(-1, self.nbytes))
        return Coded(
            codes.to(torch.int16).reshape(rows, -1),
            scales.reshape(rows, -1),
            None if term is None else term.reshape(rows, -1),
        )


def _half(b: Tensor, at: int) -> Tensor:
    """Return the float16 at a byte of each block, as float32 ``[n, 1]``."""
    return (
        b[:, at : at + 2].clone(memory_format=torch.contiguous_format).view(torch.float16).float()
    )


def _shorts(b: Tensor, first: int, last: int) -> Tensor:
    """Return unsigned 16-bit numbers as int32."""
    return (
        b[:, first:last].clone(memory_format=torch.contiguous_format).view(torch.int16).int()
        & 0xFFFF
    )


def _words(b: Tensor, first: int, last: int) -> Tensor:
    """Return unsigned 32-bit numbers as int64."""
    return (
        b[:, first:last].clone(memory_format=torch.contiguous_format).view(torch.int32).long()
        & 0xFFFFFFFF
    )


def _signed(b: Tensor, first: int, last: int) -> Tensor:
    return b[:, first:last].clone(memory_format=torch.contiguous_format).view(torch.int8)


def _halves(b: Tensor) -> Tensor:
    """Return the low halves of the bytes, then the high ones; int32."""
    wide = b.int()
    return torch.cat([wide & 15, wide >> 4], dim=-1)


def _bits(b: Tensor, shifts: list[int], mask: int) -> Tensor:
    """Return fields ``[n, shifts, bytes]`` of the bytes ``[n, bytes]``; int32."""
    return (b.int().unsqueeze(1) >> torch.tensor(shifts)[:, None]) & mask


def _top_bits(b: Tensor, at: int) -> Tensor:
    """Return 32 single bits of a word; int32 ``[n, 32]``."""
    return ((_words(b, at, at + 4) >> torch.arange(32)) & 1).int()


def _q4_0(b: Tensor) -> tuple[Tensor, Tensor, None]:
    return _halves(b[:, 2:]) - 8, _half(b, 0), None


def _q4_1(b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _halves(b[:, 4:]), _half(b, 0), _half(b, 2)


def _q5_0(b: Tensor) -> tuple[Tensor, Tensor, None]:
    return (_halves(b[:, 6:]) | _top_bits(b, 2) << 4) - 16, _half(b, 0), None


def _q5_1(b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _halves(b[:, 8:]) | _top_bits(b, 4) << 4, _half(b, 0), _half(b, 2)


def _q8_0(b: Tensor) -> tuple[Tensor, Tensor, None]:
    return _signed(b, 2, 34), _half(b, 0), None


def _pairs(b: Tensor) -> Tensor:
    """Return 2-bit fields in the order of K-quants: four runs of 32 for each 32 bytes."""
    return torch.cat([_bits(part, [0, 2, 4, 6], 3).flatten(1) for part in torch.split(b, 32, 1)], 1)


def _q2_k(b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scales, d, least = b[:, :16].int(), _half(b, 80), _half(b, 82)
    return _pairs(b[:, 16:80]), d * (scales & 15).float(), -(least * (scales >> 4).float())


def _q3_k(b: Tensor) -> tuple[Tensor, Tensor, None]:
    high = _bits(b[:, :32], list(range(8)), 1).flatten(1)
    packed = b[:, 96:108].int()
    low = torch.cat([packed[:, :8] & 15, packed[:, :8] >> 4], 1)
    scales = (low | _bits(packed[:, 8:], [0, 2, 4, 6], 3).flatten(1) << 4) - 32
    return _pairs(b[:, 32:96]) - 4 * (1 - high), _half(b, 108) * scales.float(), None


def _k_scales(b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eight 6-bit scales and minima of Q4_K and Q5_K from their 12 bytes."""
    low, middle, high = (part.int() for part in torch.split(b, 4, 1))
    scales = torch.cat([low & 63, high & 15 | low >> 2 & 48], 1)
    least = torch.cat([middle & 63, high >> 4 | middle >> 2 & 48], 1)
    return scales.float(), least.float()


def _runs(b: Tensor) -> Tensor:
    """Return 4-bit fields in the order of K-quants: the low halves of 32 bytes, then the high."""
    return torch.cat([_halves(part) for part in torch.split(b, 32, 1)], 1)


def _q4_k(b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scales, least = _k_scales(b[:, 4:16])
    return _runs(b[:, 16:]), _half(b, 0) * scales, -(_half(b, 2) * least)


def _q5_k(b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scales, least = _k_scales(b[:, 4:16])
    high = _bits(b[:, 16:48], list(range(8)), 1).flatten(1)
    return _runs(b[:, 48:]) | high << 4, _half(b, 0) * scales, -(_half(b, 2) * least)


def _q6_k(b: Tensor) -> tuple[Tensor, Tensor, None]:
    low = torch.cat([_halves(part) for part in torch.split(b[:, :128], 64, 1)], 1)
    high = _pairs(b[:, 128:192])
    return (low | high << 4) - 32, _half(b, 208) * _signed(b, 192, 208).float(), None


def _iq4_nl(b: Tensor) -> tuple[Tensor, Tensor, None]:
    return IQ4.integers(_halves(b[:, 2:])), _half(b, 0), None


def _iq4_xs(b: Tensor) -> tuple[Tensor, Tensor, None]:
    low = torch.stack([b[:, 4:8].int() & 15, b[:, 4:8].int() >> 4], 2).flatten(1)
    high = (_shorts(b, 2, 4) >> torch.arange(0, 16, 2)) & 3
    scales = (low | high << 4) - 32
    codes = IQ4.integers(_halves(b[:, 8:].reshape(-1, 8, 16))).flatten(1)
    return codes, _half(b, 0) * scales.float(), None


def _mxfp4(b: Tensor) -> tuple[Tensor, Tensor, None]:
    scales = torch.ldexp(torch.ones(len(b), 1), b[:, :1].int() - 128)
    return E2M1.integers(_halves(b[:, 1:])), scales, None


def _nvfp4(b: Tensor) -> tuple[Tensor, Tensor, None]:
    raw = b[:, :4]
    e, m = (raw >> 3 & 15).int(), (raw & 7).float()
    scales = torch.where(e == 0, m * 2.0**-9, torch.ldexp(1 + m / 8, e - 7)) * 0.5
    scales = torch.where((raw == 0) | (raw == 127), torch.zeros(()), scales)
    codes = E2M1.integers(_halves(b[:, 4:].reshape(-1, 4, 8)))
    return codes.flatten(1), scales, None


def _tq1_0(b: Tensor) -> tuple[Tensor, Tensor, None]:
    def trits(part: Tensor, count: int) -> Tensor:
        powers = torch.tensor([3**i for i in range(count)])[:, None]
        return (((part.int().unsqueeze(1) * powers & 255) * 3) >> 8).flatten(1)

    codes = torch.cat([trits(b[:, :32], 5), trits(b[:, 32:48], 5), trits(b[:, 48:52], 4)], 1)
    return codes - 1, _half(b, 52), None


def _tq2_0(b: Tensor) -> tuple[Tensor, Tensor, None]:
    return _pairs(b[:, :64]) - 1, _half(b, 64), None


def _q1_0(b: Tensor) -> tuple[Tensor, Tensor, None]:
    ones = (b[:, 2:].int().unsqueeze(2) >> torch.arange(8)) & 1
    return 2 * ones.flatten(1) - 1, _half(b, 0), None


@cache
def _grid(name: str) -> Tensor:
    """Return one of the tables of points of ggml's IQ types; int32 ``[points, 8 or 4]``."""
    return load_file(Path(__file__).with_name("grids.safetensors"))[name].int()


@cache
def _parity_signs() -> Tensor:
    """Return the eight signs of each 7-bit number; the last makes the number of minuses even."""
    seven = (torch.arange(128)[:, None] >> torch.arange(7)) & 1
    return 1 - 2 * torch.cat([seven, seven.sum(1, keepdim=True) & 1], 1).int()


def _byte_signs(b: Tensor) -> Tensor:
    return 1 - 2 * ((b.int().unsqueeze(-1) >> torch.arange(8)) & 1)


def _iq2_xxs(b: Tensor) -> tuple[Tensor, Tensor, None]:
    parts = b[:, 2:].reshape(-1, 8, 8)
    words = (
        parts[:, :, 4:].clone(memory_format=torch.contiguous_format).view(torch.int32).long()
        & 0xFFFFFFFF
    )
    points = _grid("iq2_xxs")[parts[:, :, :4].int()]
    signs = _parity_signs()[(words >> torch.arange(0, 28, 7)) & 127]
    scales = _half(b, 0) * (0.5 + (words[:, :, 0] >> 28).float()) * 0.25
    return (points * signs).flatten(1), scales, None


def _iq2_xs(b: Tensor) -> tuple[Tensor, Tensor, None]:
    shorts = _shorts(b, 2, 66)
    codes = _grid("iq2_xs")[shorts & 511] * _parity_signs()[shorts >> 9]
    return codes.flatten(1), _iq2_scales(b, 66), None


def _iq2_scales(b: Tensor, at: int) -> Tensor:
    packed = b[:, at : at + 8].int()
    both = torch.stack([packed & 15, packed >> 4], 2).flatten(1)
    return _half(b, 0) * (0.5 + both.float()) * 0.25


def _iq2_s(b: Tensor) -> tuple[Tensor, Tensor, None]:
    high = (b[:, 66:74].int().unsqueeze(2) >> torch.arange(0, 8, 2)) & 3
    points = _grid("iq2_s")[b[:, 2:34].int() | high.flatten(1) << 8]
    return (points * _byte_signs(b[:, 34:66])).flatten(1), _iq2_scales(b, 74), None


def _iq3_xxs(b: Tensor) -> tuple[Tensor, Tensor, None]:
    points = _grid("iq3_xxs")[b[:, 2:66].int()].reshape(-1, 8, 4, 8)
    words = _words(b, 66, 98).unsqueeze(2)
    signs = _parity_signs()[(words >> torch.arange(0, 28, 7)) & 127]
    scales = _half(b, 0) * (0.5 + (words[:, :, 0] >> 28).float()) * 0.5
    return (points * signs).flatten(1), scales, None


def _iq3_s(b: Tensor) -> tuple[Tensor, Tensor, None]:
    high = (b[:, 66:74].int().unsqueeze(2) >> torch.arange(8)) & 1
    points = _grid("iq3_s")[b[:, 2:66].int() | high.flatten(1) << 8].reshape(-1, 32, 8)
    packed = b[:, 106:110].int()
    both = torch.stack([packed & 15, packed >> 4], 2).flatten(1)
    scales = _half(b, 0) * (1 + 2 * both).float()
    return (points * _byte_signs(b[:, 74:106])).flatten(1), scales, None


def _eighths(points: Tensor, minus: Tensor) -> Tensor:
    """Return eight times the points of IQ1, each shifted by an eighth up or down."""
    return (8 * points + (1 - 2 * minus).unsqueeze(-1)).flatten(1)


def _iq1_s(b: Tensor) -> tuple[Tensor, Tensor, None]:
    high = _shorts(b, 34, 50)
    index = b[:, 2:34].int() | ((high.unsqueeze(2) >> torch.arange(0, 12, 3)) & 7).flatten(1) << 8
    minus = (high >> 15).repeat_interleave(4, 1)
    scales = _half(b, 0) * (2 * (high >> 12 & 7) + 1).float() / 8
    return _eighths(_grid("iq1_s")[index], minus), scales, None


def _iq1_m(b: Tensor) -> tuple[Tensor, Tensor, None]:
    packed = _shorts(b, 48, 56)
    bits = ((packed >> 12) << torch.tensor([0, 4, 8, 12])).sum(1, keepdim=True)
    d = bits.to(torch.int32).to(torch.int16).view(torch.float16).float()
    scales = ((packed.unsqueeze(2) >> torch.arange(0, 12, 3)) & 7).flatten(1)
    high = (b[:, 32:48].int().unsqueeze(2) >> torch.tensor([0, 4])).flatten(1) & 15
    index = b[:, :32].int() | (high & 7) << 8
    codes = _eighths(_grid("iq1_s")[index], high >> 3)
    return codes, d * (2 * scales + 1).float() / 8, None


BLOCKS: dict[int, BlockType] = {
    0: BlockType("F32", 1, 4),
    1: BlockType("F16", 1, 2, dtype=torch.float16),
    30: BlockType("BF16", 1, 2, dtype=torch.bfloat16),
    2: BlockType("Q4_0", 32, 18, INT4, _q4_0),
    3: BlockType("Q4_1", 32, 20, Code(4), _q4_1),
    6: BlockType("Q5_0", 32, 22, Code(5, 16), _q5_0),
    7: BlockType("Q5_1", 32, 24, Code(5), _q5_1),
    8: BlockType("Q8_0", 32, 34, INT8, _q8_0),
    10: BlockType("Q2_K", 256, 84, Code(4), _q2_k),
    11: BlockType("Q3_K", 256, 110, INT4, _q3_k),
    12: BlockType("Q4_K", 256, 144, Code(4), _q4_k),
    13: BlockType("Q5_K", 256, 176, Code(5), _q5_k),
    14: BlockType("Q6_K", 256, 210, Code(6, 32), _q6_k),
    16: BlockType("IQ2_XXS", 256, 66, INT8, _iq2_xxs),
    17: BlockType("IQ2_XS", 256, 74, INT8, _iq2_xs),
    18: BlockType("IQ3_XXS", 256, 98, INT8, _iq3_xxs),
    19: BlockType("IQ1_S", 256, 50, INT8, _iq1_s),
    20: BlockType("IQ4_NL", 32, 18, IQ4, _iq4_nl),
    21: BlockType("IQ3_S", 256, 110, INT8, _iq3_s),
    22: BlockType("IQ2_S", 256, 82, INT8, _iq2_s),
    23: BlockType("IQ4_XS", 256, 136, IQ4, _iq4_xs),
    29: BlockType("IQ1_M", 256, 56, INT8, _iq1_m),
    34: BlockType("TQ1_0", 256, 54, INT4, _tq1_0, 256),
    35: BlockType("TQ2_0", 256, 66, INT4, _tq2_0, 256),
    39: BlockType("MXFP4", 32, 17, E2M1, _mxfp4),
    40: BlockType("NVFP4", 64, 36, E2M1, _nvfp4),
    41: BlockType("Q1_0", 128, 18, INT4, _q1_0, 128),
}
"""The block types by their numbers in the file."""
