"""The choice of a device on a machine without a GPU, and the sizes that an engine tells."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.checkpoint.checkpoint import Checkpoint
from model.device import choose_device, weight_bytes
from model.engine import Engine
from model.errors import CheckpointError
from tests.integration.test_checkpoint_experts import reference, text_config
from tests.support.make_gguf import make_gguf
from tests.support.native import library

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


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A small mixture of experts."""
    config = text_config()
    path = tmp_path_factory.mktemp("mixture") / "m.gguf"
    make_gguf(path, config, reference(config)[1], {"": "F16"})
    return Checkpoint.open(path)


def test_a_gpu_with_too_little_memory_is_one_line_that_says_what_fits(
    mixture: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch is told of a GPU that is not there, with room for half of the weights."""
    needed = weight_bytes(mixture, mixture.config.dtype)
    pretend_gpu(monkeypatch, needed // 2)
    with pytest.raises(CheckpointError) as caught:
        choose_device("cuda", mixture, experts="gpu")
    lacks = (needed * 1.15 - needed // 2) / 1e9
    assert f"its memory lacks {lacks:,.1f} GB of {needed * 1.15 / 1e9:,.1f}" in str(caught.value)
    assert "--quantize int4 would fit" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert choose_device("auto", mixture, experts="gpu").device.type == "cpu"
    chosen = choose_device("cuda", mixture, "int4", experts="gpu")
    assert chosen.device == torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("experts", "room", "host"),
    [
        ("auto", "all", False),
        ("auto", "some", True),
        ("cpu", "all", True),
        ("gpu", "all", False),
        ("gpu", "some", None),
        ("cpu", "none", None),
    ],
)
def test_experts_go_where_they_are_asked_and_fit(
    experts: str,
    room: str,
    host: bool | None,
    mixture: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint, dtype = mixture, mixture.config.dtype
    few = weight_bytes(checkpoint, dtype, without_experts=True)
    free = {"all": weight_bytes(checkpoint, dtype) * 2, "some": few * 2, "none": few // 2}[room]
    assert few * 2 < weight_bytes(checkpoint, dtype)
    library("plain")
    pretend_gpu(monkeypatch, free)
    if host is None:
        assert choose_device("auto", checkpoint, experts=experts).device.type == "cpu"  # type: ignore[arg-type]
        with pytest.raises(CheckpointError, match="its memory lacks"):
            choose_device("cuda", checkpoint, experts=experts)  # type: ignore[arg-type]
        return
    chosen = choose_device("auto", checkpoint, experts=experts)  # type: ignore[arg-type]
    assert chosen.device.type == "cuda"
    assert chosen.host_experts is host
    assert ("all but the experts, which the CPU runs" in chosen.reason) == host


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Let torch say that there is one GPU with ``free`` bytes."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "a GPU")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free, free))
