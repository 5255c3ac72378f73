"""The choice of a device on a machine without a GPU, and the sizes that an engine tells."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.checkpoint.checkpoint import Checkpoint
from model.device import choose_device, weight_bytes
from model.engine import Engine
from model.errors import CheckpointError

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@no_gpu
def test_auto_takes_the_cpu_and_says_why(tiny_checkpoint: Path) -> None:
    chosen = choose_device("auto", Checkpoint.open(tiny_checkpoint))
    assert chosen.device.type == "cpu"
    assert chosen.reason == "there is no CUDA device that torch can use"


@no_gpu
@pytest.mark.parametrize("asked", ["cuda", "cuda:3"])
def test_a_gpu_that_is_not_there_is_one_line(asked: str, tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        Engine.load(tiny_checkpoint, name="x", device=asked)
    assert str(caught.value) == (
        f"--device {asked} cannot run this model: there is no CUDA device that torch can use;"
        " use --device cpu"
    )


def test_the_sizes_are_those_of_the_tensors(tiny_checkpoint: Path) -> None:
    engine = Engine.load(tiny_checkpoint, name="x", device="cpu", kv_memory=10_000_000)
    placed = engine.placement
    assert placed is not None
    checkpoint = Checkpoint.open(tiny_checkpoint)
    assert placed.weight_bytes == weight_bytes(checkpoint, torch.float32)
    assert sum(placed.forms.values()) == placed.weight_bytes
    assert placed.computed_in == "float32"
    assert 0 < placed.longest_context <= engine.context_length
    assert weight_bytes(checkpoint, torch.bfloat16, "int4") < placed.weight_bytes / 2
