"""A vision tower in a GGUF file: found beside a model, given by a flag, refused if another's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken
from tokenizers import Tokenizer as Encoder

from agent.errors import ConfigError
from agent.loading import load_for
from agent.settings.load import load_settings
from agent.settings.table import Settings
from model.errors import CheckpointError
from model.vision.tower import open_tower
from tests.support.make_tiny_checkpoint import make
from tests.support.mmproj import CONFIG, TENSORS, VISION, write_mmproj
from tests.support.sighted import VISION_TOKENS


def test_the_tower_beside_a_model_is_found_and_read(tmp_path: Path) -> None:
    write_mmproj(tmp_path / "mmproj-F32.gguf")
    tower = open_tower(tmp_path / "model-Q4_K_M.gguf", CONFIG)
    assert tower is not None
    assert vars(tower.config) == {
        key: value for key, value in VISION.items() if key in vars(tower.config)
    }
    for name, tensor in TENSORS.items():
        assert torch.equal(tower.tensors[name].read(), tensor), name


def test_a_model_without_a_tower_beside_it_has_no_eyes(tmp_path: Path) -> None:
    assert open_tower(tmp_path / "model.gguf", CONFIG) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"width": 64}, "64 numbers, the model's 32"),
        ({"projector": "ldp"}, "'ldp', not qwen3vl_merger"),
        ({"without": "merger.linear_fc2.weight"}, "lacks the tensor mm.2.weight"),
    ],
)
def test_another_tower_is_refused(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    path = write_mmproj(tmp_path / "other.gguf", **changed)
    with pytest.raises(CheckpointError, match=words) as caught:
        open_tower(tmp_path / "model.gguf", CONFIG, path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def blind(tmp_path: Path) -> Path:
    """A checkpoint of text alone, whose tokenizer knows the tokens of pictures."""
    folder = tmp_path / "blind"
    make(folder)
    encoder = Encoder.from_file(str(folder / "tokenizer.json"))
    encoder.add_tokens([AddedToken(text, special=True) for text in VISION_TOKENS])
    encoder.save(str(folder / "tokenizer.json"))
    return folder


def test_the_flag_gives_a_model_eyes(blind: Path, tmp_path: Path) -> None:
    file = write_mmproj(tmp_path / "eyes.gguf")
    settings = Settings(model=str(blind), mmproj=str(file))
    assert load_for(settings).chat.sees
    assert not load_for(settings.model_copy(update={"mmproj": None})).chat.sees


@pytest.mark.parametrize(
    ("name", "words"),
    [("wide.gguf", "64 numbers, the model's 32"), ("gone.gguf", "gone.gguf"), ("", "at least 1")],
)
def test_the_flag_with_a_file_that_does_not_fit_is_one_line(
    blind: Path, tmp_path: Path, name: str, words: str
) -> None:
    write_mmproj(tmp_path / "wide.gguf", width=64)
    with pytest.raises((CheckpointError, ConfigError), match=words) as caught:
        load_for(
            load_settings({"model": str(blind), "mmproj": str(tmp_path / name) if name else ""})
        )
    assert "\n" not in str(caught.value)
