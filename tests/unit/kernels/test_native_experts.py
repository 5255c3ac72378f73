"""Experts on the compiled path, and rows as they lie in a GGUF file, against their definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.backend import KernelError
from kernels.experts import ExpertStack, ExpertWeight, experts, route
from kernels.experts.native import NativeExperts
from kernels.linear import StackedWeight, StoredRows, linear, plain, quantize
from kernels.linear import native as compiled
from kernels.linear.stored_rows import KINDS
from kernels.native import LEVELS
from kernels.swiglu import swiglu
from tests.support.blocks import random_blocks
from tests.support.native import dirty_memory, library

FORMS = ("float32", "bfloat16", "int8", "int4", *KINDS, "mixed")
TOLERANCE = {"float32": 1e-5, "bfloat16": 1.2e-2}


def stored(kind: str, rows: int, inputs: int, seed: int) -> tuple[StoredRows, Tensor]:
    raw, values = random_blocks(kind, rows, inputs, seed)
    library("plain")
    held = StoredRows.of(kind, inputs, raw)
    assert held is not None
    return held, values


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_file_are_unpacked_and_multiplied(
    kind: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, values = stored(kind, 75, 512, seed=1)
    monkeypatch.setenv("TENUTO_NATIVE", level)
    found = library(level)
    torch.testing.assert_close(plain(held, torch.float32), values, rtol=1e-6, atol=1e-9)
    other, more = stored(kind, 21, 512, seed=2)
    both = StackedWeight((held, other))
    x = torch.randn(40, 512, generator=torch.Generator().manual_seed(3))
    expected = x @ torch.cat([values, more]).T
    for rows in (1, 2, 7, 40):
        with dirty_memory(2):
            got = compiled.linear(found, x[:rows], both)
        # As large as a product of unrelated numbers would be.
        size = x[:rows].norm() * torch.cat([values, more]).norm() / 512**0.5
        assert (got - expected[:rows]).norm() < 1.5e-2 * size, rows
    with dirty_memory(3):
        together = compiled.linear(found, x, both, exact_rows=True)
    alone = torch.cat([compiled.linear(found, row[None], both) for row in x])
    assert torch.equal(alone, together)


def weights(form: str, count: int, outputs: int, inputs: int, seed: int) -> ExpertWeight:
    """Random matrices of ``count`` experts in one form; ``mixed`` is two kinds of a GGUF file."""
    if form in KINDS or form == "mixed":
        kinds = ("Q4_K", "Q6_K") if form == "mixed" and outputs != 512 else (form,)
        kinds = ("Q5_K",) if kinds == ("mixed",) else kinds
        members = []
        for expert in range(count):
            each = outputs // len(kinds)
            parts = tuple(
                stored(kind, each, inputs, seed + 7 * expert + i)[0] for i, kind in enumerate(kinds)
            )
            members.append(parts[0] if len(parts) == 1 else StackedWeight(parts))
        return ExpertStack(tuple(members))
    g = torch.Generator().manual_seed(seed)
    whole = torch.randn(count, outputs, inputs, generator=g) * inputs**-0.5
    if not form.startswith("int"):
        return whole.to(getattr(torch, form))
    held = quantize(whole.flatten(0, 1), int(form[3:]))
    return ExpertStack(tuple(held.rows(e * outputs, (e + 1) * outputs) for e in range(count)))


HIDDEN, INNER, SHARED = 512, 256, 96


def layer(form: str, count: int, chosen: int) -> tuple[NativeExperts, list[ExpertWeight]]:
    dtype = torch.float32 if form == "float32" else torch.bfloat16
    g = torch.Generator().manual_seed(5)

    def matrix(outputs: int, inputs: int) -> Tensor:
        return (torch.randn(outputs, inputs, generator=g) * inputs**-0.5).to(dtype)

    parts: list[ExpertWeight] = [
        matrix(count, HIDDEN),
        weights(form, count, 2 * INNER, HIDDEN, seed=10),
        weights(form, count, HIDDEN, INNER, seed=20),
        matrix(1, HIDDEN),
        matrix(2 * SHARED, HIDDEN),
        matrix(HIDDEN, SHARED),
    ]
    router, gate_up, down, gate, shared_up, shared_down = parts
    return NativeExperts.of(
        chosen,
        router,
        gate_up,
        down,
        gate,
        shared_up,
        shared_down,  # type: ignore[arg-type]
    ), parts


def expected_of(x: Tensor, parts: list[ExpertWeight], chosen: int) -> Tensor:
    router, gate_up, down, gate, shared_up, shared_down = parts
    assert isinstance(router, Tensor)
    assert isinstance(gate, Tensor)
    assert isinstance(shared_up, Tensor)
    assert isinstance(shared_down, Tensor)
    # The choice is that of the compiled path's rounded inputs, or a near tie would go otherwise.
    odds = x.to(router.dtype).float()
    picked, by = route(odds, router.float(), chosen)
    ups = [plain(gate_up[e], torch.float32) for e in range(gate_up.shape[0])]
    downs = [plain(down[e], torch.float32) for e in range(down.shape[0])]
    routed = experts(x, picked, by, torch.stack(ups), torch.stack(downs))
    own = linear(swiglu(linear(x, shared_up.float())), shared_down.float())
    return routed + torch.sigmoid(linear(x, gate.float())) * own


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("count", "chosen"), [(12, 3), (4, 4)])
def test_equals_the_reference(form: str, count: int, chosen: int) -> None:
    made, parts = layer(form, count, chosen)
    x = torch.randn(150, HIDDEN, generator=torch.Generator().manual_seed(6))
    expected = expected_of(x, parts, chosen)
    for level in LEVELS[:2]:
        for rows in (1, 6, 150):
            with dirty_memory(2):
                got = made(library(level), x[:rows])
            error = (got - expected[:rows]).norm() / expected[:rows].norm()
            assert error < TOLERANCE.get(form, 2e-2), (level, rows)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("form", ["bfloat16", "int4", "Q4_K", "mixed"])
def test_a_row_does_not_depend_on_what_shares_the_pass(form: str, level: str) -> None:
    made, _ = layer(form, 12, 3)
    x = torch.randn(40, HIDDEN, generator=torch.Generator().manual_seed(7))
    found = library(level)
    with dirty_memory(3):
        together = made(found, x, exact_rows=True)
        sixteen = made(found, x[:16])
    with dirty_memory(1):
        alone = torch.cat([made(found, row[None]) for row in x])
    assert torch.equal(alone, together)
    assert torch.equal(alone[:16], sixteen)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 40), rows=st.integers(1, 30), seed=st.integers(0, 99), data=st.data())
def test_loads_however_uneven(count: int, rows: int, seed: int, data: st.DataObject) -> None:
    """Some experts get no row, or one of them all rows: rows that are alike choose alike."""
    chosen = data.draw(st.integers(1, count))
    g = torch.Generator().manual_seed(seed)
    parts = [
        torch.randn(shape, generator=g) * 0.2
        for shape in ((count, 32), (count, 64, 32), (count, 32, 32), (1, 32), (64, 32), (32, 32))
    ]
    made = NativeExperts.of(chosen, *parts)  # type: ignore[arg-type]
    x = torch.randn(rows, 32, generator=g)
    if data.draw(st.booleans()):
        x = x[:1].expand(rows, -1)
    got = made(library("plain"), x)
    torch.testing.assert_close(got, expected_of(x, list(parts), chosen), atol=1e-4, rtol=0)


def test_a_broken_input_stays_visible_and_harms_no_other_row() -> None:
    made, _ = layer("bfloat16", 12, 3)
    x = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(8))
    expected = made(library("plain"), x)
    x[1, 5] = float("nan")
    got = made(library("plain"), x)
    assert got[1].isnan().all()
    assert torch.equal(got[0::2], expected[0::2])


def test_experts_in_several_forms_are_refused() -> None:
    made, parts = layer("int8", 4, 2)
    gate_up = parts[1]
    assert isinstance(gate_up, ExpertStack)
    odd = ExpertStack((quantize(torch.ones(2 * INNER, HIDDEN), 4), *gate_up.members[1:]))
    with pytest.raises(KernelError, match="one form"):
        NativeExperts.of(2, parts[0], odd, *parts[2:])  # type: ignore[arg-type]
    assert made.struct.count == 4
