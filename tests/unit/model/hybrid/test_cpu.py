"""A whole pass on the compiled path against ``HybridModel.hidden``, its definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.backend import KernelError
from kernels.linear import plain, quantize
from kernels.native import LEVELS
from model.checkpoint.config import ModelConfig
from model.checkpoint.quantize import groups
from model.hybrid.cpu import NativeModel, why_not
from model.hybrid.model import Compiled, HybridModel, HybridNetwork
from model.network import Work
from model.state.pages import PAGE, HybridState, Layout
from model.state.passes import Pass
from tests.support.native import dirty_memory, library, random_tensors, small_config


def run(
    runner: Compiled, config: ModelConfig, layout: Layout, ids: Tensor, cuts: list[int]
) -> tuple[Tensor, HybridState]:
    """The hidden states of ``ids``, cut into passes, and the state after them."""
    state, parts = HybridState(layout), []
    with torch.inference_mode():
        for piece in ids.split(cuts, dim=1):
            running = Pass(layout, config.layer_types, [state], piece.shape[1])
            parts.append(runner.hidden(piece, running).float())
            (state,) = running.states()
    return torch.cat(parts, dim=1), state


def distance(got: Tensor, expected: Tensor) -> float:
    return float((got.float() - expected.float()).norm() / expected.float().norm())


@settings(max_examples=25, deadline=None)
@given(
    level=st.sampled_from(LEVELS),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    cuts=st.lists(st.sampled_from([1, 2, 15, 16, 17, 64, 100, 255, 300]), min_size=1, max_size=5),
    heads=st.sampled_from([(4, 2), (6, 1), (3, 3)]),
    threads=st.sampled_from([1, 3]),
    seed=st.integers(0, 100),
)
def test_equals_torch_however_the_text_is_cut(
    level: str,
    dtype: torch.dtype,
    cuts: list[int],
    heads: tuple[int, int],
    threads: int,
    seed: int,
) -> None:
    config = small_config(num_attention_heads=heads[0], num_key_value_heads=heads[1])
    tensors = random_tensors(config, seed)
    model = HybridModel.build(config, tensors, dtype)
    # bfloat16 is judged by the same rounded weights in float32.
    rounded = {n: t.to(dtype).float() if t.dim() > 1 else t for n, t in tensors.items()}
    judge = HybridModel.build(config, rounded, torch.float32)
    ids = torch.randint(300, (1, sum(cuts)), generator=torch.Generator().manual_seed(seed))
    compiled = NativeModel(model, library(level))
    with dirty_memory(threads):
        got, state = run(compiled, config, Layout.of(config, model.embedding), ids, cuts)
    expected, judged = run(judge, config, Layout.of(config, judge.embedding), ids, [sum(cuts)])
    bound = 1e-5 if dtype == torch.float32 else 3e-2
    assert distance(got, expected) < bound
    for name, tensor in state.tensors().items():
        assert distance(tensor, judged.tensors()[name]) < bound
    span = state.span(0, sum(cuts))["kv"]
    assert distance(span, judged.span(0, sum(cuts))["kv"]) < bound


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_codes_of_keys_and_values_give_what_torch_makes_of_them(
    dtype: torch.dtype, level: str
) -> None:
    """Prefills over several spans, single steps, and tokens that are verified together."""
    config = small_config(num_attention_heads=12, num_key_value_heads=2, head_dim=64)
    tensors = random_tensors(config)
    model = HybridModel.build(config, tensors, dtype)
    rounded = {n: t.to(dtype).float() if t.dim() > 1 else t for n, t in tensors.items()}
    judge = HybridModel.build(config, rounded, torch.float32)
    compiled = NativeModel(model, library(level))
    ours = HybridNetwork(model, fingerprint="x", compiled=compiled, kv=torch.int8)
    theirs = HybridNetwork(judge, fingerprint="x", kv=torch.int8)
    ids = torch.randint(300, (800,), generator=torch.Generator().manual_seed(1)).tolist()
    state, other = ours.new_state(), theirs.new_state()
    bound = 2e-2 if dtype == torch.float32 else 6e-2
    with dirty_memory(2):
        for start, end in ((0, 300), (300, 301), (301, 780), (780, 781), (781, 790)):
            ((got, state),) = ours.run([Work(ids[start:end], state)])
            ((expected, other),) = theirs.run([Work(ids[start:end], other)])
            assert got is not None and expected is not None
            assert distance(got, expected) < bound
        ((together, _),) = ours.verify([Work(ids[790:796], state)])
        for row, token in zip(together, ids[790:796], strict=True):
            ((alone, state),) = ours.run([Work([token], state)])
            assert alone is not None
            assert torch.equal(row, alone)
    mine, wanted = state.span(0, 790), other.span(0, 790)
    assert mine["kv"].dtype == torch.int8
    # A key that differs in its last bit may round to the next code, and no further.
    first = mine["kv"][:300, 0].int() - wanted["kv"][:300, 0].int()
    assert int(first.abs().max()) <= (1 if dtype == torch.float32 else 6)
    assert distance(mine["scales"], wanted["scales"]) < bound


@pytest.mark.parametrize("kv", [None, torch.int8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_session_does_not_see_who_shares_its_pass(
    dtype: torch.dtype, kv: torch.dtype | None
) -> None:
    config = small_config()
    model = HybridModel.build(config, random_tensors(config), dtype)
    compiled = NativeModel(model, library("plain"))
    network = HybridNetwork(model, fingerprint="x", compiled=compiled, kv=kv)
    prompts = [list(range(n)) for n in (3, 40, PAGE - 1, PAGE, 300, *range(7, 27))]
    states = [network.run([Work(ids, network.new_state())])[0][1] for ids in prompts]
    with dirty_memory(3):
        together = network.run([Work([7], state) for state in states])
    for state, (logits, after) in zip(states, together, strict=True):
        ((alone, after_alone),) = network.run([Work([7], state)])
        assert logits is not None
        assert alone is not None
        assert torch.equal(logits, alone)
        for name, tensor in after.tensors().items():
            assert torch.equal(tensor, after_alone.tensors()[name])


def test_a_pass_leaves_the_state_it_started_from() -> None:
    config = small_config()
    model = HybridModel.build(config, random_tensors(config), torch.float32)
    network = HybridNetwork(model, fingerprint="x", compiled=NativeModel(model, library("plain")))
    ((_, state),) = network.run([Work(range(40), network.new_state())])
    kept = {name: tensor.clone() for name, tensor in state.tensors().items()}
    network.run([Work(range(5), state)])
    for name, tensor in state.tensors().items():
        assert torch.equal(tensor, kept[name])


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_weights_give_what_the_same_plain_ones_give(bits: int) -> None:
    config = small_config()
    tensors = random_tensors(config)
    small = {
        names[0]: quantize(torch.cat([tensors[name] for name in names]), bits)
        for names in groups(config)
    }
    values = {name: plain(weight, torch.float32) for name, weight in small.items()}
    model = HybridModel.build(config, tensors, torch.float32, small)
    judge = HybridModel.build(config, tensors, torch.float32, values)
    ids = torch.arange(40)[None]
    compiled = NativeModel(model, library("plain"))
    for cuts in ([40], [1] * 40):
        got, _ = run(compiled, config, Layout.of(config, model.embedding), ids, cuts)
        expected, _ = run(judge, config, Layout.of(config, judge.embedding), ids, cuts)
        assert distance(got, expected) < 4e-2
        last = got[0, -1:]
        assert distance(compiled.logits(last), judge.logits(last)) < 2e-2


def test_what_it_cannot_run_is_refused_and_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    library("plain")
    config = small_config()
    assert why_not(config, torch.float32) is None
    for changed, reason in (
        (replace(config, head_dim=48), "head dimension 48"),
        (replace(config, linear_key_head_dim=8), "DeltaNet head dimension"),
        (replace(config, intermediate_size=40), "layer width"),
    ):
        assert reason in (why_not(changed, torch.float32) or "")
    assert "float16" in (why_not(config, torch.float16) or "")
    assert "cuda:0" in (why_not(config, torch.float32, "cuda:0") or "")
    monkeypatch.setenv("TENUTO_NATIVE", "off")
    assert "make setup" in (why_not(config, torch.float32) or "")
    with pytest.raises(KernelError, match="cannot run this model: it is not built"):
        NativeModel(HybridModel.build(config, random_tensors(config), torch.float32))
