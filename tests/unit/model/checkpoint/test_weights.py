"""Loading checkpoints: single and sharded, both prefixes, and every way a file can be wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoint.config import ModelConfig
from model.checkpoint.weights import fingerprint, load_tensors, tensor_shapes
from model.errors import CheckpointError

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may damage."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "a checkpoint")


@pytest.fixture
def config(tiny_checkpoint: Path) -> ModelConfig:
    return ModelConfig.load(tiny_checkpoint)


def rewrite(checkpoint: Path, tensors: Tensors) -> None:
    save_file(tensors, checkpoint / "model.safetensors")


def shard(checkpoint: Path) -> None:
    """Split the checkpoint into two files with an index."""
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, checkpoint / file)
        places |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": places}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))


def test_single_and_sharded_are_the_same(checkpoint: Path, config: ModelConfig) -> None:
    whole = {name: t.clone() for name, t in load_tensors(checkpoint, config).items()}
    assert {name: tuple(t.shape) for name, t in whole.items()} == tensor_shapes(config)
    shard(checkpoint)
    parts = load_tensors(checkpoint, config)
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def test_the_multimodal_prefix_and_its_vision_tower(checkpoint: Path, config: ModelConfig) -> None:
    expected = load_tensors(checkpoint, config)["layers.0.mlp.up_proj.weight"].clone()
    tensors = {
        name.replace("model.", "model.language_model.", 1): t
        for name, t in load_file(checkpoint / "model.safetensors").items()
    }
    tensors["model.visual.blocks.0.norm1.weight"] = torch.zeros(3)
    rewrite(checkpoint, tensors)
    got = load_tensors(checkpoint, config)
    assert got.keys() == tensor_shapes(config).keys()
    assert torch.equal(got["layers.0.mlp.up_proj.weight"], expected)


def test_mtp_may_be_absent_but_not_partly(checkpoint: Path, config: ModelConfig) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    rewrite(checkpoint, {n: t for n, t in tensors.items() if not n.startswith("mtp.")})
    assert load_tensors(checkpoint, config).keys() == tensor_shapes(config, mtp=False).keys()
    del tensors["mtp.fc.weight"]
    rewrite(checkpoint, tensors)
    with pytest.raises(CheckpointError, match=r"mtp\.fc\.weight"):
        load_tensors(checkpoint, config)


def refused(checkpoint: Path, config: ModelConfig, *says: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_tensors(checkpoint, config)
    message = str(caught.value)
    assert "\n" not in message
    for part in says:
        assert part in message


def test_a_missing_tensor_is_named(checkpoint: Path, config: ModelConfig) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["model.layers.3.self_attn.k_norm.weight"]
    rewrite(checkpoint, tensors)
    refused(checkpoint, config, "model.layers.3.self_attn.k_norm.weight")


def test_a_wrong_shape_is_named(checkpoint: Path, config: ModelConfig) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["model.layers.0.linear_attn.A_log"] = torch.zeros(7)
    rewrite(checkpoint, tensors)
    refused(checkpoint, config, "model.layers.0.linear_attn.A_log", "[7]", "[4]", ".safetensors")


def test_integer_weights_are_refused(checkpoint: Path, config: ModelConfig) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["model.norm.weight"] = torch.zeros(32, dtype=torch.int8)
    rewrite(checkpoint, tensors)
    refused(checkpoint, config, "model.norm.weight", "int8")


@pytest.mark.parametrize("keep", [0, 5, 2000, -1])
def test_a_truncated_file_is_named(checkpoint: Path, config: ModelConfig, keep: int) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(checkpoint, config, "model.safetensors", "truncated")


def test_a_missing_file(checkpoint: Path, config: ModelConfig) -> None:
    (checkpoint / "model.safetensors").unlink()
    refused(checkpoint, config, "model.safetensors is missing")


def test_a_missing_and_an_incomplete_shard(checkpoint: Path, config: ModelConfig) -> None:
    shard(checkpoint)
    second = checkpoint / "model-00002-of-00002.safetensors"
    kept = load_file(second)
    first_name = sorted(kept)[0]
    save_file({name: t for name, t in kept.items() if name != first_name}, second)
    refused(checkpoint, config, second.name, first_name)
    second.unlink()
    refused(checkpoint, config, second.name, "missing")


@pytest.mark.parametrize("content", ["", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
def test_a_broken_index_is_named(checkpoint: Path, config: ModelConfig, content: str) -> None:
    (checkpoint / "model.safetensors.index.json").write_text(content)
    refused(checkpoint, config, "model.safetensors.index.json")


def test_the_fingerprint_covers_names_shapes_samples_config_and_dtype(
    checkpoint: Path, config: ModelConfig
) -> None:
    tensors = load_tensors(checkpoint, config)
    base = fingerprint(config, tensors, torch.float32)
    assert fingerprint(config, dict(reversed(tensors.items())), torch.float32) == base
    others = {fingerprint(config, tensors, torch.bfloat16)}
    for name in ("norm.weight", "embed_tokens.weight"):
        for place in (0, -1):
            changed = tensors[name].clone()
            changed.view(-1)[place] += 1
            others.add(fingerprint(config, tensors | {name: changed}, torch.float32))
    others.add(fingerprint(config, {"x": tensors["norm.weight"]}, torch.float32))
    assert len(others | {base}) == 7


def test_mtp_tensors_may_lie_in_a_file_that_the_index_does_not_list(
    checkpoint: Path, config: ModelConfig
) -> None:
    expected = {name: t.clone() for name, t in load_tensors(checkpoint, config).items()}
    tensors = load_file(checkpoint / "model.safetensors")
    mtp = {name: t for name, t in tensors.items() if name.startswith("mtp.")}
    rest = {name: t for name, t in tensors.items() if name not in mtp}
    (checkpoint / "model.safetensors").unlink()
    save_file(rest, checkpoint / "model-00001-of-00001.safetensors")
    save_file(mtp, checkpoint / "model_extra_tensors.safetensors")
    index = {"weight_map": dict.fromkeys(rest, "model-00001-of-00001.safetensors")}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    got = load_tensors(checkpoint, config)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in got)


def test_many_files_without_an_index(checkpoint: Path, config: ModelConfig) -> None:
    expected = {name: t.clone() for name, t in load_tensors(checkpoint, config).items()}
    shard(checkpoint)
    (checkpoint / "model.safetensors.index.json").unlink()
    got = load_tensors(checkpoint, config)
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    (checkpoint / "model-00002-of-00002.safetensors").unlink()
    refused(checkpoint, config, "model-00002-of-00002.safetensors is missing")


@pytest.mark.parametrize("place", ["config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("what", ["device", "pipe", "folder", "brackets", "nothing"])
def test_small_files_that_are_no_files_or_nested_too_deep(
    checkpoint: Path, place: str, what: str
) -> None:
    file = checkpoint / place
    file.unlink(missing_ok=True)
    if what == "device":
        file.symlink_to("/dev/zero")
    elif what == "pipe":
        os.mkfifo(file)
    elif what == "folder":
        file.mkdir()
    elif what == "brackets":
        file.write_text("[" * 200_000)
    else:
        file.symlink_to("nowhere")
    if (place, what) == ("model.safetensors.index.json", "nothing"):
        return
    with pytest.raises(CheckpointError, match=place) as caught:
        load_tensors(checkpoint, ModelConfig.load(checkpoint))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", ["device", "pipe"])
def test_weights_that_are_no_file(checkpoint: Path, config: ModelConfig, what: str) -> None:
    file = checkpoint / "model.safetensors"
    file.unlink()
    if what == "device":
        file.symlink_to("/dev/zero")
    else:
        os.mkfifo(file)
    refused(checkpoint, config, "model.safetensors is no plain file")
