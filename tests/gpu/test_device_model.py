"""A whole small network by the Triton kernels against the same network in torch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kernels.backend import KernelError, interpreting
from kernels.linear import QuantizedWeight, StackedWeight, Weight, plain, quantize
from kernels.sampling import sample_batch
from model.checkpoint.config import ExpertsConfig, ModelConfig
from model.checkpoint.quantize import groups
from model.checkpoint.weights import tensor_shapes
from model.hybrid.gpu import DeviceModel, StepInputs, why_not
from model.hybrid.model import HybridModel, HybridNetwork
from model.network import State, Work
from model.state.passes import Pass
from tests.gpu.comparing import close
from tests.support.native import library

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


@pytest.mark.parametrize("host", [False, True])
def test_a_model_with_experts(device: torch.device, host: bool) -> None:
    """On the device, and with the experts in host memory, where the CPU's path computes them."""
    config = replace(CONFIG, hidden_size=64, intermediate_size=32, experts=ExpertsConfig(6, 2, 32))
    torch.manual_seed(2)
    shapes = tensor_shapes(config, mtp=False)
    tensors = {name: torch.randn(shape) * shape[-1] ** -0.5 for name, shape in shapes.items()}
    with torch.inference_mode():
        model = HybridModel.build(config, tensors, torch.float32)
        plain = HybridNetwork(model, fingerprint="x")
        kept = {n: t if host and ".mlp." in n else t.to(device) for n, t in tensors.items()}
        placed = HybridModel.build(config, kept, torch.float32)
    if host:
        library("plain")
    compiled = DeviceModel(placed, host_experts=host)
    fast = HybridNetwork(placed, fingerprint="x", compiled=compiled)
    ids = list(range(12))
    results = []
    for network in (plain, fast):
        [(first, state)] = network.run([Work(ids, network.new_state(), logits=True)])
        [(second, _)] = network.run([Work([5], state, logits=True)])
        assert first is not None
        assert second is not None
        results.append(torch.stack([first, second]).cpu())
    close(results[1], results[0], float32=1e-3)


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


def follow(network: HybridNetwork, chunks: tuple[int, ...], steps: int) -> list[torch.Tensor]:
    """Logits of a prompt in chunks and an odd end, of a fork, and of steps of both at once."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 64, (80,), generator=generator).tolist()
    state: State = network.new_state()
    for chunk in chunks:
        [(_, state)] = network.run([Work(ids[:chunk], state, logits=False)])
    [(first, one)] = network.run([Work(ids[77:80], state, logits=True)])
    [(second, other)] = network.run([Work(ids[3:7], state, logits=True)])
    out = [first, second]
    for token in range(steps):
        results = network.run([Work([token], at, logits=True) for at in (one, other)])
        (third, one), (fourth, other) = results
        out += [third, fourth]
    # From the snapshot once more: nothing that ran since has touched it.
    [(again, _)] = network.run([Work(ids[77:80], state, logits=True)])
    assert first is not None and again is not None
    assert torch.equal(again, first)
    return [one for one in out if one is not None]


def test_chunks_forks_and_snapshots(model: HybridModel) -> None:
    plain_network, fast = networks(model)
    runs = [follow(network, (64, 13), 2) for network in (fast, plain_network)]
    for got, expected in zip(*runs, strict=True):
        close(got, expected, float32=1e-3)


def test_quantised_weights(device: torch.device) -> None:
    """The network of quantised weights against the same numbers as plain matrices in torch."""
    config = replace(CONFIG, hidden_size=64, intermediate_size=96)
    torch.manual_seed(4)
    tensors = {
        name: (torch.randn(shape) * shape[-1] ** -0.5).to(device)
        for name, shape in tensor_shapes(config).items()
    }
    with torch.inference_mode():
        joined = {names[0]: torch.cat([tensors[n] for n in names]) for names in groups(config)}
        made = {name: quantize(weight.cpu(), 4) for name, weight in joined.items()}
        small = {name: weight.to(device) for name, weight in made.items()}
        wide = {name: plain(weight, torch.float32).to(device) for name, weight in made.items()}
        rest = {
            name: tensor
            for name, tensor in tensors.items()
            if name == "embed_tokens.weight" or not any(name in names for names in groups(config))
        }
        fast = HybridModel.build(config, rest, torch.float32, small)
        slow = HybridModel.build(config, rest, torch.float32, wide)
    for name, weight in made.items():
        assert torch.equal(plain(small[name], torch.float32).cpu(), plain(weight, torch.float32))
    # Nothing but the quantised form is held, as many bytes of it as on the CPU.
    held = [
        part
        for weight in products(fast)
        for part in (weight.parts if isinstance(weight, StackedWeight) else (weight,))
    ]
    coded = [part for part in held if isinstance(part, QuantizedWeight)]
    assert sum(part.nbytes for part in coded) == sum(weight.nbytes for weight in made.values())
    for part in held:
        if not isinstance(part, QuantizedWeight):
            assert part.shape[0] <= 2 * config.linear_num_value_heads, "only the gates' inputs"
    compiled = HybridNetwork(fast, fingerprint="x", compiled=DeviceModel(fast))
    got = follow(compiled, (9,), 1)
    expected = follow(HybridNetwork(slow, fingerprint="x"), (9,), 1)
    for one, other in zip(got, expected, strict=True):
        close(one, other, float32=1e-3)


def products(model: HybridModel) -> list[Weight]:
    """All matrices of the layers and the head."""
    found = [model.head]
    for block in model.blocks:
        mixer, ff = block.mixer, block.feed_forward
        found += [mixer.in_proj, getattr(mixer, "o_proj", None) or mixer.out_proj]
        found += [ff.gate_up, ff.down]
    return found


def test_tokens_are_drawn_without_the_host(model: HybridModel) -> None:
    """Ids go from the sampling kernel into the next step, as tensors of the device alone."""
    from kernels.sampling.triton import options_of, sample_batch_at

    plain_network, fast = networks(model)
    assert isinstance(fast.compiled, DeviceModel)
    layout = fast.layout
    options = options_of([0.7, 0.0], [20, 0], [0.9, 1.0], [0.0, 0.0]).to(layout.device)
    uniform = torch.tensor([0.3, 0.3], device=layout.device)
    with torch.inference_mode(), layout.memory.passing():
        states = [fast.new_state(), fast.new_state()]
        ids = torch.tensor([[5], [9]], device=layout.device)
        drawn = [ids]
        for _ in range(3):
            running = Pass(layout, CONFIG.layer_types, states, 1)
            hidden = fast.compiled.hidden(ids, running)
            ids = sample_batch_at(fast.compiled.logits(hidden[:, -1]), uniform, options)[:, None]
            states = list(running.states())
            drawn.append(ids)
    # The same, each token by way of the host.
    for row in range(2):
        state: State = plain_network.new_state()
        for step in range(3):
            [(logits, state)] = plain_network.run(
                [Work([int(drawn[step][row])], state, logits=True)]
            )
            assert logits is not None
            expected = sample_batch(
                logits[None],
                uniform[row : row + 1],
                temperature=[0.7, 0.0][row : row + 1],
                top_k=[20, 0][row : row + 1],
                top_p=[0.9, 1.0][row : row + 1],
                min_p=[0.0],
            )
            assert int(expected[0]) == int(drawn[step + 1][row])


def test_what_cannot_run_says_why(model: HybridModel) -> None:
    odd, device = replace(CONFIG, head_dim=24), model.embedding.device
    reason = why_not(odd, torch.float32, device)
    assert reason == "head dimension 24 is no power of two from 16 to 256"
    assert why_not(CONFIG, torch.float16, device) == "they do not compute in torch.float16"
    with pytest.raises(KernelError, match="head dimension 24"):
        DeviceModel(replace(model, config=odd))
