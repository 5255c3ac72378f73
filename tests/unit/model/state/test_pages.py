"""States of pages and a slot: what is shared, what is copied, and states as saved tensors."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from model.checkpoint.config import ModelConfig
from model.errors import StateError
from model.state.pages import PAGE, HybridState, Layout
from model.state.passes import AttentionMemory, DeltaMemory, Pass


@pytest.fixture
def layout(tiny_checkpoint: Path) -> Layout:
    return Layout.of(ModelConfig.load(tiny_checkpoint), torch.zeros(1))


KINDS = ("linear_attention",) * 3 + ("full_attention",)


def grow(state: HybridState, count: int, value: float) -> HybridState:
    """``count`` more positions whose keys are ``value``, and a slot of that value."""
    layout = state.layout
    with layout.memory.passing():
        running = Pass(layout, KINDS, [state], count)
        for layer in running.layers:
            if isinstance(layer, AttentionMemory):
                heads, dim = layout.page[2], layout.page[4]
                keys = torch.full((1, count, heads, dim), value)
                layer.append(keys, -keys)
            else:
                conv, recurrent = layer.read()
                layer.write(torch.full_like(conv, value), recurrent + value)
    (after,) = running.states()
    # Unwritten room must never show.
    page = after.pages[-1]
    page.data[:, :, :, page.filled :] = float("nan")
    return after


def keys(state: HybridState) -> list[float]:
    kv = state.span(0, state.length)["kv"]
    assert torch.equal(kv[:, :, 0], -kv[:, :, 1])
    return [float(value) for value in kv[:, 0, 0, 1, 3]]


def test_appending_keeps_what_is_there(layout: Layout) -> None:
    state, expected = HybridState(layout), []
    for value, count in enumerate([1, 300, 1, 1, 700], 1):
        state = grow(state, count, float(value))
        expected += [float(value)] * count
        assert keys(state) == expected
    assert state.length == len(expected)
    assert len(state.pages) == -(-state.length // PAGE)
    assert float(state.tensors()["recurrent"][0, 0, 0, 0]) == 15.0
    assert float(state.tensors()["conv"][0, 0, 0]) == 5.0


def test_only_the_page_that_two_fill_differently_is_copied(layout: Layout) -> None:
    trunk = grow(HybridState(layout), PAGE + 5, 1.0)
    left = grow(trunk, 2, 2.0)
    right = grow(trunk, 3, 3.0)
    again = grow(left, 1, 4.0)
    assert left.pages == trunk.pages == again.pages
    assert right.pages[0] is trunk.pages[0]
    assert right.pages[1] is not trunk.pages[1]
    ones = [1.0] * (PAGE + 5)
    assert keys(trunk) == ones
    assert keys(left) == ones + [2.0] * 2
    assert keys(right) == ones + [3.0] * 3
    assert keys(again) == ones + [2.0] * 2 + [4.0]


def test_twins_in_one_pass_do_not_write_the_same_page(layout: Layout) -> None:
    trunk = grow(HybridState(layout), 7, 1.0)
    with layout.memory.passing():
        running = Pass(layout, KINDS, [trunk, trunk], 1)
        for layer in running.layers:
            if isinstance(layer, AttentionMemory):
                new = torch.tensor([2.0, 3.0]).reshape(2, 1, 1, 1)
                new = new.expand(2, 1, layout.page[2], layout.page[4])
                layer.append(new, -new)
    left, right = running.states()
    assert keys(left) == [1.0] * 7 + [2.0]
    assert keys(right) == [1.0] * 7 + [3.0]


def test_forks_at_the_end_of_a_page_copy_nothing(layout: Layout) -> None:
    trunk = grow(HybridState(layout), PAGE, 1.0)
    left, right = grow(trunk, 1, 2.0), grow(trunk, 1, 3.0)
    assert left.pages[0] is right.pages[0] is trunk.pages[0]
    assert layout.memory.used == 3 * (layout.page_bytes + layout.slot_bytes)


def test_a_pass_reads_one_slot_and_writes_another(layout: Layout) -> None:
    before = grow(HybridState(layout), 3, 1.0)
    kept = before.tensors()["recurrent"].clone()
    grow(before, 1, 5.0)
    assert torch.equal(before.tensors()["recurrent"], kept)


def test_several_sequences_are_read_and_written_row_by_row(layout: Layout) -> None:
    states = [HybridState(layout), grow(HybridState(layout), 3, 2.0)]
    with layout.memory.passing():
        running = Pass(layout, KINDS, states, 1)
        for layer in running.layers:
            if isinstance(layer, DeltaMemory):
                conv, recurrent = layer.read()
                assert recurrent[:, 0, 0, 0].tolist() == [0.0, 2.0]
                layer.write(conv + 1, recurrent + 1)
    after = [state.tensors()["recurrent"][0, 0, 0, 0].item() for state in running.states()]
    assert after == [1.0, 3.0]


def test_nothing_is_left_when_the_last_state_is_gone(layout: Layout) -> None:
    state = grow(HybridState(layout), 600, 1.0)
    twin = grow(state, 1, 2.0)
    assert layout.memory.used == 3 * layout.page_bytes + 2 * layout.slot_bytes
    del state
    assert layout.memory.used == 3 * layout.page_bytes + layout.slot_bytes
    del twin
    assert layout.memory.used == 0


@pytest.mark.parametrize("cuts", [[], [1], [256], [100, 300, 512]])
def test_a_state_survives_its_tensors(layout: Layout, cuts: list[int]) -> None:
    state = HybridState(layout)
    for value, count in enumerate([5, 1, 594], 1):
        state = grow(state, count, float(value))
    edges = [0, *cuts, 600]
    spans = [state.span(start, end) for start, end in pairwise(edges)]
    copy = HybridState.load(layout, state.tensors(), spans, 600)
    assert copy.length == 600
    assert keys(copy) == keys(state)
    for name, tensor in state.tensors().items():
        assert torch.equal(copy.tensors()[name], tensor)
    assert keys(grow(copy, 1, 9.0)) == [*keys(state), 9.0]


def test_an_empty_state_survives_too(layout: Layout) -> None:
    empty = HybridState(layout)
    assert HybridState.load(layout, empty.tensors(), [], 0) == empty
    assert empty.span(0, 0)["kv"].shape[0] == 0


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "dtype", "length", "kv", "name"])
def test_tensors_that_do_not_fit_are_refused(layout: Layout, fault: str) -> None:
    state = grow(HybridState(layout), 9, 1.0)
    tensors, span, length = state.tensors(), state.span(0, 9), 9
    if fault == "missing":
        del tensors["recurrent"]
    elif fault == "unknown":
        tensors["more"] = torch.zeros(1)
    elif fault == "shape":
        tensors["recurrent"] = tensors["recurrent"][:, :1]
    elif fault == "dtype":
        tensors["conv"] = tensors["conv"].bfloat16()
    elif fault == "kv":
        span["kv"] = span["kv"].bfloat16()
    elif fault == "name":
        span["keys"] = span.pop("kv")
    else:
        length = 8
    with pytest.raises(StateError):
        HybridState.load(layout, tensors, [span], length)


def test_the_recurrent_state_is_float32_in_any_model(tiny_checkpoint: Path) -> None:
    like = torch.zeros(1, dtype=torch.bfloat16)
    tensors = HybridState(Layout.of(ModelConfig.load(tiny_checkpoint), like)).tensors()
    assert tensors["recurrent"].dtype == torch.float32
    assert tensors["conv"].dtype == torch.bfloat16
