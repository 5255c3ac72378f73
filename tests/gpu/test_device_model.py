"""A whole small network by the Triton kernels against the same network in torch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kernels.backend import KernelError, interpreting
from model.config import ModelConfig
from model.device import DeviceModel, StepInputs, why_not
from model.hybrid import HybridModel, HybridNetwork
from model.network import Work
from model.passes import Pass
from model.weights import tensor_shapes
from tests.gpu.comparing import close

pytestmark = pytest.mark.gpu

CONFIG = replace(
    ModelConfig.tiny(vocab_size=64, context_length=1 << 12),
    layer_types=("linear_attention", "full_attention", "linear_attention"),
    linear_num_value_heads=2,
    linear_num_key_heads=1,
    linear_key_head_dim=16,
    linear_value_head_dim=16,
)


@pytest.fixture(scope="module")
def model(device: torch.device) -> HybridModel:
    torch.manual_seed(0)
    shapes = tensor_shapes(CONFIG)
    tensors = {name: torch.randn(shape) * shape[-1] ** -0.5 for name, shape in shapes.items()}
    with torch.inference_mode():
        moved = {name: tensor.to(device) for name, tensor in tensors.items()}
        return HybridModel.build(CONFIG, moved, torch.float32)


def networks(model: HybridModel) -> tuple[HybridNetwork, HybridNetwork]:
    """By torch, and by the kernels."""
    compiled = DeviceModel(model)
    return (
        HybridNetwork(model, fingerprint="x"),
        HybridNetwork(model, fingerprint="x", compiled=compiled),
    )


def test_a_prompt_and_steps_of_two_sequences(model: HybridModel) -> None:
    plain, fast = networks(model)
    ids = torch.randint(0, 64, (2, 300), generator=torch.Generator().manual_seed(1)).tolist()
    lengths = (12, 257)
    states = {}
    for network in (plain, fast):
        states[network] = []
        for own, length in zip(ids, lengths, strict=True):
            # A long piece, then a short one, as a prompt and a tool's result.
            [(_, state)] = network.run([Work(own[: length - 3], network.new_state(), logits=False)])
            [(logits, state)] = network.run([Work(own[length - 3 : length], state, logits=True)])
            states[network].append((logits, state))
    for (a, _), (b, _) in zip(states[fast], states[plain], strict=True):
        close(a, b, float32=1e-3)
    results = {}
    for network in (plain, fast):
        works = [
            Work(own[length : length + 1], state, logits=True)
            for own, length, (_, state) in zip(ids, lengths, states[network], strict=True)
        ]
        results[network] = network.run(works)
    for (a, _), (b, _) in zip(results[fast], results[plain], strict=True):
        close(a, b, float32=1e-3)


def test_a_step_reads_all_that_changes_from_its_inputs(model: HybridModel) -> None:
    """What a replayed graph relies on: the same tensors, filled anew, give the next step."""
    plain, fast = networks(model)
    assert isinstance(fast.compiled, DeviceModel)
    step, layout = fast.compiled.step, fast.layout
    first, second = fast.new_state(), plain.new_state()
    kept: StepInputs | None = None
    with torch.inference_mode(), layout.memory.passing():
        for token in (5, 9):
            running = Pass(layout, CONFIG.layer_types, [first], 1)
            ids = torch.tensor([[token]], device=layout.device)
            fresh = StepInputs.of(ids, running, 16)
            if kept is None:
                kept = fresh
            for own, given in zip(kept.parts(), fresh.parts(), strict=True):
                own.copy_(given)
            # Twice: capturing a step runs it before the graph does.
            step(kept)
            hidden = step(kept)
            [first] = running.states()
            other = Pass(plain.layout, CONFIG.layer_types, [second], 1)
            expected = model.hidden(ids, other)
            [second] = other.states()
            close(hidden, expected, float32=1e-3)


@pytest.mark.skipif(interpreting(), reason="graphs need a device")
def test_a_captured_step_equals_the_same_step_launched(model: HybridModel) -> None:
    works = {}
    for graphs in (True, False):
        network = HybridNetwork(model, fingerprint="x", compiled=DeviceModel(model, graphs=graphs))
        state, out = network.new_state(), []
        for token in (5, 9, 11, 13):
            [(logits, state)] = network.run([Work([token], state, logits=True)])
            out.append(logits)
        works[graphs] = torch.stack([one for one in out if one is not None])
    assert torch.equal(works[True], works[False])


def test_what_cannot_run_says_why(model: HybridModel) -> None:
    odd, device = replace(CONFIG, head_dim=24), model.embedding.device
    reason = why_not(odd, torch.float32, device)
    assert reason == "head dimension 24 is no power of two from 16 to 256"
    assert why_not(CONFIG, torch.float16, device) == "they do not compute in torch.float16"
    with pytest.raises(KernelError, match="head dimension 24"):
        DeviceModel(replace(model, config=odd))
