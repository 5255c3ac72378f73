"""Grouped products over experts in Triton against the definition, however uneven the loads are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.backend import KernelError
from kernels.experts import DeviceStack, ExpertStack, ExpertWeight, experts
from kernels.fp8_linear import Fp8Weight, round_to_fp8
from kernels.linear import Code, quantize
from tests.gpu.comparing import CALM, close, randn
from tests.support.quantized import IQ4, random_weight

pytestmark = pytest.mark.gpu

CODED = {
    "q4_k": (Code(4), 32, "int8", True),
    "q5_k": (Code(5), 32, "int8", True),
    "q6_k": (Code(6, 32), 16, "int8", False),
    "iq4": (Code(4, table=IQ4), 32, "float16", False),
}
"""The code of a few forms, its groups, the dtype of their scales, and whether they have terms."""


def weights(
    kind: str, count: int, outputs: int, inputs: int, dtype: torch.dtype, device: torch.device
) -> ExpertWeight:
    plain = randn(outputs, count * outputs, inputs) * inputs**-0.5
    if kind == "plain":
        return plain.reshape(count, outputs, inputs).to(dtype).to(device)
    if kind in ("int4", "int8"):
        return DeviceStack(count, quantize(plain, int(kind[3:])).to(device))
    if kind in CODED:
        code, group, scales, terms = CODED[kind]
        small = random_weight(code, group, scales, terms, count * outputs, inputs, outputs)
        few = small.tops if small.tops is not None else small.scales
        few *= inputs**-0.5 / (1e4 if small.tops is not None else 50)
        return DeviceStack(count, small.to(device))
    made = round_to_fp8(plain)
    if kind == "fp8 rows":
        made = Fp8Weight(made.data, made.scales.repeat_interleave(128, dim=0))
    return DeviceStack(count, made.to(device))


@CALM
@given(
    kind=st.sampled_from(["plain", "int4", "int8", "fp8", "fp8 rows", *CODED]),
    rows=st.sampled_from([1, 3, 8, 9, 40]),
    count=st.sampled_from([1, 3, 12]),
    load=st.sampled_from(["any", "one has all", "one has none"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_equals_the_reference(
    device: torch.device,
    kind: str,
    rows: int,
    count: int,
    load: str,
    dtype: torch.dtype,
    seed: int,
) -> None:
    per = 1 if load == "one has all" else min(3, count)
    odds = torch.rand(rows, count, generator=torch.Generator().manual_seed(seed))
    if load == "one has all":
        odds[:, seed % count] = 2.0
    elif load == "one has none" and count > per:
        odds[:, seed % count] = -1.0
    picked = odds.topk(per).indices.to(device)
    by = (odds.gather(1, picked.cpu()) + 0.5).to(dtype).to(device)
    # A plain weight may have any width; the others come in blocks.
    hidden, inner = (80, 48) if kind == "plain" else (64, 64)
    if kind.startswith("fp8"):
        hidden, inner = 128, 128
    up = weights(kind, count, 2 * inner, hidden, dtype, device)
    down = weights(kind, count, hidden, inner, dtype, device)
    x = randn(seed, rows, hidden, dtype=dtype, device=device)
    got = experts(x, picked, by, up, down, backend="triton")
    expected = experts(x.float(), picked, by.float(), _floats(up), _floats(down))
    close(got, expected.to(dtype), float32=1e-4, bfloat16=3e-2)


def _floats(weight: ExpertWeight) -> ExpertWeight:
    return weight.float() if isinstance(weight, torch.Tensor) else weight


def test_tiles_hold_every_choice_once(device: torch.device) -> None:
    from kernels.experts.triton_plan import tiles

    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        count, slots, rows = 1 + seed % 7, 1 + seed * 5, (4, 16)[seed % 2]
        chosen = torch.randint(count, (slots,), generator=g)
        order, expert, first, last = (t.tolist() for t in tiles(chosen.to(device), count, rows))
        seen = []
        for own, start, end in zip(expert, first, last, strict=True):
            places = order[start:end] if own >= 0 else []
            assert len(places) <= rows
            assert all(chosen[place] == own for place in places)
            seen += places
        assert sorted(seen) == list(range(slots))


def test_weights_in_another_layout_are_refused(device: torch.device) -> None:
    stack = ExpertStack((torch.zeros(4, 16), torch.zeros(4, 16)))
    x = torch.zeros(1, 16, device=device)
    chosen = torch.zeros(1, 1, dtype=torch.int64, device=device)
    with pytest.raises(KernelError, match="stack them first"):
        experts(x, chosen, torch.ones(1, 1, device=device), stack, stack, backend="triton")
