"""Quantising at load: what is kept on disk, when it is made anew, what it means for sessions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kernels.linear import QuantizedWeight, dequantize
from model.checkpoint import quantize as quantize_module
from model.checkpoint.config import ModelConfig
from model.checkpoint.quantize import cache_file, groups
from model.checkpoint.weights import load_tensors, tensor_shapes
from model.engine import Engine
from model.errors import CheckpointError, StateError
from model.hybrid.model import HybridNetwork
from tests.support.compiled_checkpoint import make
from tests.support.native import library


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint with random weights, and an empty cache."""
    library("plain")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return make(tmp_path / "model", seed=0)


def said(engine: Engine) -> list[int]:
    session = engine.session()
    session.extend(range(50))
    return [e.id for e in session.generate(engine.generation, max_tokens=8, stop_ids=frozenset())]


def head(engine: Engine) -> QuantizedWeight:
    assert isinstance(engine.network, HybridNetwork)
    weight = engine.network.model.head
    assert isinstance(weight, QuantizedWeight)
    return weight


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_second_load_maps_what_the_first_one_wrote(checkpoint: Path, mode: str) -> None:
    first = Engine.load(checkpoint, name="x", quantize=mode)
    file = cache_file(checkpoint, mode)
    written = file.stat()
    second = Engine.load(checkpoint, name="x", quantize=mode)
    assert file.stat().st_mtime_ns == written.st_mtime_ns
    assert said(first) == said(second)
    assert first.fingerprint == second.fingerprint
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_every_large_matrix_is_quantised_and_the_gates_are_not(checkpoint: Path) -> None:
    config = ModelConfig.load(checkpoint)
    named = {name for names in groups(config) for name in names}
    matrices = {
        name
        for name, shape in tensor_shapes(config, mtp=False).items()
        if len(shape) == 2 and "in_proj_a" not in name and "in_proj_b" not in name
    }
    assert named == matrices


def test_weights_that_changed_are_quantised_anew(checkpoint: Path) -> None:
    before = head(Engine.load(checkpoint, name="x", quantize="int4"))
    make(checkpoint, seed=1)
    after = head(Engine.load(checkpoint, name="x", quantize="int4"))
    assert not torch.equal(before.data, after.data)
    tensors = load_tensors(checkpoint, ModelConfig.load(checkpoint))
    weight = tensors["embed_tokens.weight"]
    assert (dequantize(after) - weight).norm() < 0.12 * weight.norm()


def test_a_change_that_the_fingerprint_does_not_sample_is_noticed(checkpoint: Path) -> None:
    Engine.load(checkpoint, name="x", quantize="int8")
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    tensors["model.embed_tokens.weight"][160] = 3.0
    stat = path.stat()
    save_file(tensors, path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    weight = dequantize(head(Engine.load(checkpoint, name="x", quantize="int8")))
    torch.testing.assert_close(weight[160], torch.full((64,), 3.0), rtol=1e-2, atol=0)


@pytest.mark.parametrize("damage", ["truncated", "nonsense", "of int8"])
def test_a_cache_that_cannot_be_used_is_made_anew(checkpoint: Path, damage: str) -> None:
    expected = said(Engine.load(checkpoint, name="x", quantize="int4"))
    file = cache_file(checkpoint, "int4")
    if damage == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "nonsense":
        file.write_bytes(b"nonsense")
    else:
        Engine.load(checkpoint, name="x", quantize="int8")
        cache_file(checkpoint, "int8").replace(file)
    assert said(Engine.load(checkpoint, name="x", quantize="int4")) == expected


def test_a_cache_that_cannot_be_written_is_done_without(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = said(Engine.load(checkpoint, name="x", quantize="int4"))
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert said(Engine.load(checkpoint, name="x", quantize="int4")) == expected


def test_states_of_another_form_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    engines = [Engine.load(checkpoint, name="x", quantize=q) for q in ("none", "int8", "int4")]
    assert len({engine.fingerprint for engine in engines}) == 3
    session = engines[2].session()
    session.extend(range(20))
    session.save(tmp_path / "saved")
    assert engines[2].resume(tmp_path / "saved").length == 20
    with pytest.raises(StateError, match="another model"):
        engines[0].resume(tmp_path / "saved")


def test_without_the_compiled_path_torch_runs_the_same_values(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = Engine.load(checkpoint, name="x", quantize="int8")
    monkeypatch.setenv("TENUTO_NATIVE", "off")
    engine = Engine.load(checkpoint, name="x", quantize="int8")
    assert isinstance(engine.network, HybridNetwork)
    assert engine.network.compiled is None
    weight = engine.network.model.head
    assert isinstance(weight, torch.Tensor)
    torch.testing.assert_close(weight, dequantize(head(compiled)))
    assert engine.fingerprint == compiled.fingerprint
    assert len(said(engine)) == 8


def test_a_width_that_no_group_divides_is_one_line(checkpoint: Path) -> None:
    make(checkpoint, seed=0, intermediate_size=100)
    Engine.load(checkpoint, name="x")
    with pytest.raises(CheckpointError, match="100 inputs cannot be quantised") as caught:
        Engine.load(checkpoint, name="x", quantize="int4")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["int8", "int4"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_stop_with_the_name(checkpoint: Path, mode: str, bad: float) -> None:
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][5, 7] = bad
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight holds NaN or inf"):
        Engine.load(checkpoint, name="x", quantize=mode)
    assert list(cache_file(checkpoint, mode).parent.glob("*")) == []


def test_a_flipped_bit_in_the_cache_is_noticed(checkpoint: Path) -> None:
    expected = said(Engine.load(checkpoint, name="x", quantize="int8"))
    file = cache_file(checkpoint, "int8")
    whole = file.read_bytes()
    for place in range(3, len(whole), len(whole) // 50):
        changed = bytearray(whole)
        changed[place] ^= 64
        file.write_bytes(changed)
        assert said(Engine.load(checkpoint, name="x", quantize="int8")) == expected


def test_what_a_killed_process_left_is_removed(checkpoint: Path) -> None:
    folder = cache_file(checkpoint, "int4").parent
    folder.mkdir(parents=True)
    old, young = folder / "draft-old", folder / "draft-young"
    for file in (old, young):
        file.write_bytes(b"x" * 1000)
    os.utime(old, (0, 0))
    Engine.load(checkpoint, name="x", quantize="int4")
    kept = {cache_file(checkpoint, "int4").name, young.name}
    assert {p.name for p in folder.iterdir()} == kept


def test_the_cache_has_a_limit(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize_module, "MOST_CACHE_BYTES", 300_000)
    folder = cache_file(checkpoint, "int4").parent
    folder.mkdir(parents=True)
    for age, name in enumerate(("a", "b", "c")):
        file = folder / f"{name}.safetensors"
        file.write_bytes(bytes(200_000))
        os.utime(file, (1000 - age, 1000))
    Engine.load(checkpoint, name="x", quantize="int4")
    assert (folder / "a.safetensors").exists()
    assert not (folder / "b.safetensors").exists()
    assert not (folder / "c.safetensors").exists()
