"""Rounding to int4 that weighs inputs by their mean squares on a text, as llama.cpp's imatrix does.

A trial for ``quantized_quality``: the product rounds without text (docs/decisions/0019).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import Tensor

from kernels.linear import QuantizedWeight, Weight, from_codes
from kernels.linear import linear as product
from kernels.linear.rounding import LEVELS, span_for
from model.checkpoint.quantize import groups
from model.hybrid.attention import Attention
from model.hybrid.deltanet import DeltaNet
from model.hybrid.layers import FeedForward
from model.hybrid.model import HybridModel

_USERS = ("layers", "attention", "deltanet", "model")
_RANGES = (1.05, 0.98, 0.91, 0.84, 0.77)


@contextmanager
def squares_of_inputs(model: HybridModel) -> Iterator[dict[str, Tensor]]:
    """Within it, collect the sum of squares of each matrix's inputs, by the matrix's first name."""
    names = {id(weight): name for name, weight in _matrices(model).items()}
    found: dict[str, Tensor] = {}

    def noted(x: Tensor, weight: Weight) -> Tensor:
        name = names.get(id(weight))
        if name is not None:
            own = x.reshape(-1, x.shape[-1]).float().square().sum(0)
            found[name] = found[name] + own if name in found else own
        return product(x, weight)

    with ExitStack() as patches:
        for user in _USERS:
            patches.enter_context(mock.patch(f"model.hybrid.{user}.linear", noted))
        yield found


def _matrices(model: HybridModel) -> dict[str, Weight]:
    """Return the matrices that are rounded, by the first of the names that each joins."""
    names = [joined[0] for joined in groups(model.config)]
    weights: list[Weight] = []
    for block in model.blocks:
        mixer, own = block.mixer, block.feed_forward
        assert isinstance(own, FeedForward)
        if isinstance(mixer, Attention):
            weights += [mixer.in_proj, mixer.o_proj]
        else:
            assert isinstance(mixer, DeltaNet)
            weights += [mixer.in_proj, mixer.out_proj]
        weights += [own.gate_up, own.down]
    return dict(zip(names, [*weights, model.head], strict=True))


def round_by_importance(weight: Tensor, squares: Tensor, *, by_size: bool) -> QuantizedWeight:
    """Return ``weight`` in int4, scales chosen by errors weighted with ``squares [inputs]``.

    ``by_size`` also weighs by the root of a weight's square plus its row's mean, as llama.cpp does.
    """
    assert LEVELS.table is not None
    outputs, inputs = weight.shape
    table, span = torch.tensor(LEVELS.table).float(), span_for(inputs)
    grouped = weight.float().reshape(outputs, -1, 16)
    factor = (squares / squares.mean()).clamp(min=1e-6).reshape(1, -1, 16).expand_as(grouped)
    if by_size:
        mean = weight.float().square().mean(1)[:, None, None]
        factor = factor * (mean + grouped.square()).sqrt()
    best = _scales(grouped, factor, table)
    spans = best.reshape(outputs, inputs // span, span // 16)
    tops = (spans.abs().amax(-1) / 127 * 1.004).bfloat16()
    by = tops.float().unsqueeze(-1)
    steps = torch.where(by > 0, spans / by, torch.zeros_like(spans)).round().clamp(-127, 127)
    codes = _nearest(grouped, (steps * by).reshape(outputs, -1, 1), table)
    held = steps.to(torch.int8).reshape(outputs, -1)
    return from_codes(LEVELS, codes.to(torch.uint8).reshape(outputs, inputs), held, tops=tops)


def _scales(grouped: Tensor, factor: Tensor, table: Tensor) -> Tensor:
    top = grouped.gather(-1, grouped.abs().argmax(-1, keepdim=True))
    best, least = torch.zeros_like(top), torch.full_like(top, torch.inf)
    for end in (table[0], table[-1]):
        for reach in _RANGES:
            q = table[_nearest(grouped, top / end * reach, table)]
            square = (factor * q * q).sum(-1, keepdim=True)
            scale = (factor * q * grouped).sum(-1, keepdim=True) / square.clamp(min=1e-30)
            error = (factor * (grouped - q * scale).square()).sum(-1, keepdim=True)
            better = (error < least) & (top != 0)
            best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best.squeeze(-1)


def _nearest(grouped: Tensor, scale: Tensor, table: Tensor) -> Tensor:
    up = torch.where(scale != 0, 1 / scale, torch.zeros_like(scale))
    return torch.bucketize(grouped * up, (table[1:] + table[:-1]) / 2)
