"""From pixels to patches, as a checkpoint's ``preprocessor_config.json`` says.

The method is that of the Qwen2-VL image processor (Wang et al., 2024; ``Qwen2VLImageProcessor`` of
transformers): a resize that nearly keeps the proportions, a normalisation, and a cut into patches
of two equal frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.checkpoint.files import read_json
from model.errors import CheckpointError, PictureError
from model.vision.image_ids import LEAST_TOKENS, MOST_TOKENS

_MOST_RATIO = 200
_FILES = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Grid:
    """The rows and columns of a picture's tokens."""

    rows: int
    columns: int

    @property
    def tokens(self) -> int:
        """The number of tokens."""
        return self.rows * self.columns

    @property
    def extent(self) -> int:
        """The number of positions that the picture takes: the text after it starts so much on."""
        return max(self.rows, self.columns)


@dataclass(frozen=True)
class Preparing:
    """Settings by which pictures are prepared. ``least`` and ``most`` are areas in pixels."""

    least: int = 65536
    most: int = 16777216
    patch: int = 16
    frames: int = 2
    merge: int = 2
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @property
    def unit(self) -> int:
        """The side of a token in pixels."""
        return self.patch * self.merge

    @classmethod
    def load(cls, directory: Path) -> Preparing:
        """Read the settings beside the weights; the family's own where there are none.

        Raises ``CheckpointError`` if they cannot be used.
        """
        for name in _FILES:
            path = directory / name
            if not path.exists():
                continue
            given = read_json(path)
            if isinstance(given, Mapping):
                given = given.get("image_processor", given)
            if isinstance(given, Mapping) and "patch_size" in given:
                return cls._from(given, path)
        return cls()

    @classmethod
    def _from(cls, given: Mapping[str, Any], path: Path) -> Preparing:
        try:
            size = given.get("size") or {}
            made = cls(
                least=int(given.get("min_pixels") or size.get("shortest_edge", cls.least)),
                most=int(given.get("max_pixels") or size.get("longest_edge", cls.most)),
                patch=int(given["patch_size"]),
                frames=int(given.get("temporal_patch_size", 2)),
                merge=int(given.get("merge_size", 2)),
                mean=tuple(float(x) for x in given.get("image_mean", cls.mean)),
                std=tuple(float(x) for x in given.get("image_std", cls.std)),
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path} has a wrong value: {error}; fetch it again") from error
        area = made.unit**2
        fits = (
            0 < made.patch <= 256
            and 0 < made.merge <= 16
            and 0 < made.frames <= 16
            and LEAST_TOKENS * area <= made.least <= made.most <= MOST_TOKENS * area
            and len(made.mean) == len(made.std) == 3
            and all(made.std)
        )
        if not fits:
            raise CheckpointError(
                f"{path} asks for pictures of {made.least:,} to {made.most:,} pixels in patches of"
                f" {made.patch}; from {LEAST_TOKENS} to {MOST_TOKENS:,} tokens a picture are"
                " supported: fetch it again"
            )
        return made

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width in pixels that a picture is resized to.

        Raises ``PictureError`` if one side is more than 200 times the other.
        """
        if max(height, width) > _MOST_RATIO * min(height, width):
            raise PictureError(
                f"a picture of {width:,} × {height:,} pixels is too narrow for the model;"
                f" its sides may differ by a factor of {_MOST_RATIO}"
            )
        unit = self.unit
        high, wide = round(height / unit) * unit, round(width / unit) * unit
        if high * wide > self.most:
            shrink = math.sqrt(height * width / self.most)
            high = max(unit, math.floor(height / shrink / unit) * unit)
            wide = max(unit, math.floor(width / shrink / unit) * unit)
        elif high * wide < self.least:
            grow = math.sqrt(self.least / (height * width))
            high = math.ceil(height * grow / unit) * unit
            wide = math.ceil(width * grow / unit) * unit
        return high, wide

    def grid(self, height: int, width: int) -> Grid:
        """Return the grid of tokens of a picture. Raises ``PictureError``."""
        high, wide = self.size(height, width)
        return Grid(high // self.unit, wide // self.unit)

    def patches(self, pixels: Tensor) -> tuple[Tensor, Grid]:
        """Return the patches ``[patches, 3 * frames * patch * patch]`` of ``pixels [3, h, w]``.

        ``pixels`` are uint8. The patches of a token stand together, tokens row by row. Raises
        ``PictureError``.
        """
        high, wide = self.size(pixels.shape[1], pixels.shape[2])
        resized = pixels[None]
        if (high, wide) != tuple(pixels.shape[1:]):
            # On uint8 torch computes what Pillow does, in the same integers.
            resized = F.interpolate(
                resized, (high, wide), mode="bicubic", antialias=True, align_corners=False
            )
        mean = torch.tensor(self.mean).view(3, 1, 1) * 255
        std = torch.tensor(self.std).view(3, 1, 1) * 255
        values = (resized[0].float() - mean) / std
        p, m = self.patch, self.merge
        grid = Grid(high // self.unit, wide // self.unit)
        cut = values.reshape(3, grid.rows, m, p, grid.columns, m, p).permute(1, 4, 2, 5, 0, 3, 6)
        both = cut.unsqueeze(5).expand(-1, -1, -1, -1, -1, self.frames, -1, -1)
        return both.reshape(grid.tokens * m * m, -1), grid
