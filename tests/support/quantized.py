"""Random weights in the general quantised form, for tests."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from kernels.linear import Code, QuantizedWeight, from_codes

IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
CODES = (
    *(Code(bits, zero) for bits in (4, 5, 6, 8) for zero in (0, 1 << bits - 1)),
    Code(4, table=IQ4),
    Code(4, table=E2M1),
    Code(4, table=(-128, 127) * 8),
)


def random_weight(
    code: Code, group: int, scales: str, terms: bool, outputs: int, inputs: int, seed: int = 0
) -> QuantizedWeight:
    """A weight with random codes; ``scales`` is a dtype, or ``int8`` for steps of tops."""
    g = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 1 << code.bits, (outputs, inputs), generator=g, dtype=torch.uint8)
    groups = inputs // group

    def numbers(count: int) -> Tensor:
        return torch.randn(outputs, count, generator=g)

    if scales == "int8":
        spans = inputs // max(group, 64 if inputs % 128 else 128)
        steps = [torch.randint(-128, 128, (outputs, groups), generator=g).to(torch.int8)] * 2
        tops = [numbers(spans).half() for _ in range(2)]
        more = (steps[1], tops[0], tops[1]) if terms else (None, tops[0], None)
        return from_codes(code, codes, steps[0], *more)
    kept = [numbers(groups).to(getattr(torch, scales)) for _ in range(2)]
    return from_codes(code, codes, kept[0], kept[1] if terms else None)


@st.composite
def weights(draw: st.DrawFn) -> QuantizedWeight:
    """Draw a weight of up to 80 outputs in any variant of the form."""
    code = draw(st.sampled_from(CODES))
    group = draw(st.sampled_from([32, 64, 128] if code.bits == 5 else [16, 32, 64, 128]))
    inputs = (
        draw(st.sampled_from([128, 256, 384]))
        if group > 32
        else draw(st.sampled_from([64, 128, 192]))
    )
    return random_weight(
        code,
        group,
        draw(st.sampled_from(["bfloat16", "float16", "float32", "int8"])),
        draw(st.booleans()),
        draw(st.integers(1, 80)),
        inputs,
        draw(st.integers(0, 1000)),
    )


def rounded_inputs(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """``x [rows, inputs]`` as the compiled products take it: int8, scaled by pieces of inputs."""
    piece = 16 if weight.group == 16 else 32
    pieces = x.float().reshape(len(x), -1, piece)
    most = pieces.abs().amax(-1, keepdim=True)
    up = torch.where(most > 0, 127 / most, torch.zeros(()))
    return ((pieces * up).round().double() * (most / 127).double()).reshape(x.shape)
