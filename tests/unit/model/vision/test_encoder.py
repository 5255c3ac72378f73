"""Pictures to embeddings, against transformers with the same random float32 weights."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5VisionConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5VisionModel

from model.errors import PictureError
from model.vision.encoder import Encoder
from model.vision.picture import read_picture
from model.vision.preparing import Preparing
from model.vision.tower_config import VisionConfig, vision_shapes

SHAPE = {
    "depth": 3,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_heads": 4,
    "out_hidden_size": 32,
    "num_position_embeddings": 144,
}
PREPARING = Preparing(least=16 * 1024, most=96 * 1024)
SIZES = (
    *((1, 1), (4, 800), (800, 4), (2, 3), (31, 33), (32, 32), (64, 128), (100, 75), (128, 128)),
    *((160, 200), (200, 160), (255, 257), (256, 320), (300, 300), (333, 777), (640, 480)),
    *((37, 1999), (720, 1280), (1280, 800), (1000, 1000)),
)
"""Height and width. The limits here let from 16 to 96 tokens through: the larger ones shrink."""


def picture(height: int, width: int, seed: int = 0) -> Any:
    """A picture with edges, gradients and noise."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    plain = np.stack([rows * 3 % 256, columns * 5 % 256, (rows // 8 + columns // 8) % 2 * 255], -1)
    return Image.fromarray((plain * 0.8 + random.integers(0, 51, plain.shape)).astype(np.uint8))


def as_read(image: Any) -> torch.Tensor:
    file = io.BytesIO()
    image.save(file, "PNG")
    return read_picture(file.getvalue()).pixels()


@pytest.fixture(scope="module")
def towers() -> tuple[Any, Encoder]:
    torch.manual_seed(0)
    reference = Qwen3_5VisionModel(Qwen3_5VisionConfig(**SHAPE)).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    config = VisionConfig.of({"vision_config": SHAPE}, 32)
    assert config is not None
    tensors = dict(reference.state_dict())
    assert {name: tuple(t.shape) for name, t in tensors.items()} == vision_shapes(config)
    return reference, Encoder(config, tensors)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_pixels_and_embeddings(towers: tuple[Any, Encoder], size: tuple[int, int]) -> None:
    reference, encoder = towers
    image = picture(*size)
    limits = {"shortest_edge": PREPARING.least, "longest_edge": PREPARING.most}
    processor = Qwen2VLImageProcessorPil(
        size=limits, patch_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    expected = processor(image, return_tensors="pt")
    patches, grid = PREPARING.patches(as_read(image))
    assert expected["image_grid_thw"].tolist() == [[1, grid.rows * 2, grid.columns * 2]]
    # One step of 255 is 2 / 255 after the normalisation. The fast image processor resizes as we do,
    # in torch's integers, from which Pillow's are up to two steps away where a picture grows.
    assert float((patches - expected["pixel_values"]).abs().max()) <= 4.001 / 255
    with torch.inference_mode():
        embedded = encoder(patches, grid)
        wanted = reference(patches, expected["image_grid_thw"]).pooler_output
    torch.testing.assert_close(embedded, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "spoilt",
    ["patch_embed.proj.bias", "pos_embed.weight", "merger.norm.bias", "blocks.2.norm1.weight"],
)
def test_a_small_mistake_would_show(towers: tuple[Any, Encoder], spoilt: str) -> None:
    reference, encoder = towers
    patches, grid = PREPARING.patches(as_read(picture(200, 160)))
    wrong = Encoder(encoder.config, {**encoder.tensors, spoilt: encoder.tensors[spoilt] * 1.05})
    with torch.inference_mode():
        wanted = reference(patches, torch.tensor([[1, grid.rows * 2, grid.columns * 2]]))
        difference = wrong(patches, grid) - wanted.pooler_output
    assert float(difference.abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        ((1, 1), 64),
        ((800, 1280), 1000),
        ((4, 200), 114),
        ((2000, 4000), 7750),
        ((9000, 4000), 16320),
    ],
)
def test_tokens_of_the_family(size: tuple[int, int], tokens: int) -> None:
    assert Preparing().grid(*size).tokens == tokens


def test_a_picture_that_is_too_narrow_is_refused() -> None:
    with pytest.raises(PictureError, match="too narrow"):
        Preparing().grid(4, 2000)
