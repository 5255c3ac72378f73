"""Checkpoints of fewer bits on the device: held as they are stored, and the same network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kernels.backend import interpreting
from kernels.experts import DeviceStack, ExpertStack
from kernels.fp8_linear import Fp8Weight
from kernels.linear import QuantizedWeight, StoredRows
from model.checkpoint.checkpoint import Checkpoint
from model.engine import Engine
from model.hybrid.gpu import DeviceModel
from model.hybrid.model import HybridModel, HybridNetwork
from model.network import Work
from model.placing import PlacedWeights, place
from model.scoring import score
from tests.integration.test_checkpoint_experts import Q4_K_M, one_by_one, reference, text_config
from tests.support.make_gguf import make_gguf
from tests.support.native import library

pytestmark = pytest.mark.gpu

IDS = torch.randint(512, (9,), generator=torch.Generator().manual_seed(2)).tolist()
FEW = {"num_experts": 3, "num_experts_per_tok": 2}


def placed(path: Path, device: torch.device, **options: Any) -> PlacedWeights:
    with torch.inference_mode():
        checkpoint = Checkpoint.open(path)
        return place(checkpoint, torch.bfloat16, device, native=False, **options)


def agree(path: Path, device: torch.device, most: float, **changes: Any) -> None:
    """The kernels' probabilities are those of the same values in float32 by torch."""
    exact = Engine.load(path, name="exact", dtype=torch.float32, device="cpu", native=False)
    where = "cpu" if interpreting() else str(device)
    options = {"dtype": torch.bfloat16, "device": where, "native": False}
    quick = Engine.load(path, name="quick", **options, **changes)
    found = score(exact, IDS, quick).against
    assert found is not None
    assert found.kl < most


def test_a_mixed_gguf_file_with_experts(device: torch.device, tmp_path: Path) -> None:
    library("plain")
    config = text_config(**FEW)
    path = tmp_path / "m.gguf"
    make_gguf(path, config, reference(config)[1], Q4_K_M)
    found = placed(path, device)
    stacks = {n: w for n, w in found.quantized.items() if isinstance(w, DeviceStack)}
    # Gate in Q4_K and up in Q5_K cannot be one stack; they become bfloat16.
    experts = {f"layers.{i}.mlp.experts.{n}_proj" for i in range(4) for n in ("gate_up", "down")}
    assert set(stacks) == experts - {"layers.1.mlp.experts.gate_up_proj"}
    assert all(isinstance(stack.whole, QuantizedWeight) for stack in stacks.values())
    assert set(found.converted) == {"Q4_K and Q5_K", "Q4_K"}
    agree(path, device, 5e-3)


def test_experts_in_host_memory_stay_mapped_and_are_run_by_the_cpu(
    device: torch.device, tmp_path: Path
) -> None:
    library("plain")
    config = text_config(**FEW)
    path = tmp_path / "m.gguf"
    make_gguf(path, config, reference(config)[1], Q4_K_M)
    found = placed(path, device, host_experts=True)
    stacks = [w for w in found.quantized.values() if isinstance(w, ExpertStack)]
    assert len(stacks) == 8
    assert isinstance(stacks[1][2], StoredRows)
    with torch.inference_mode():
        parts = (found.tensors, torch.bfloat16, found.quantized, found.embedding)
        model = HybridModel.build(Checkpoint.open(path).config, *parts)
    kernels = DeviceModel(model, host_experts=True)
    network = HybridNetwork(model, fingerprint="x", compiled=kernels)
    exact = Engine.load(path, name="exact", dtype=torch.float32, device="cpu", native=False)
    rows = []
    for own in (network, exact.network):
        [(_, state)] = own.run([Work(IDS[:-1], own.new_state(), logits=False)])
        [(logits, _)] = own.run([Work(IDS[-1:], state)])
        assert logits is not None
        rows.append(logits.float().cpu().log_softmax(-1))
    got, expected = rows
    assert (expected.exp() * (expected - got)).sum() < 0.02


def test_int4_is_what_the_cpu_has(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = text_config(**FEW)
    path = tmp_path / "m.gguf"
    make_gguf(path, config, reference(config)[1], {"": "F16"})
    found = placed(path, device, quantize="int4").quantized
    with torch.inference_mode():
        checkpoint = Checkpoint.open(path)
        other = place(checkpoint, torch.bfloat16, torch.device("cpu"), quantize="int4")
    assert found.keys() == other.quantized.keys()
    assert sum(w.nbytes for w in found.values()) == sum(w.nbytes for w in other.quantized.values())


def test_official_fp8_experts_are_one_stack(device: torch.device, tmp_path: Path) -> None:
    one_by_one(tmp_path, "fp8 official", **FEW)
    found = placed(tmp_path, device).quantized
    stacks = [weight for weight in found.values() if isinstance(weight, DeviceStack)]
    assert len(stacks) == 8
    assert all(isinstance(stack.whole, Fp8Weight) for stack in stacks)
    agree(tmp_path, device, 5e-3)
