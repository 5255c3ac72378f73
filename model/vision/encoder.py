"""The vision encoder: from patches to one embedding a token, in plain torch.

Source: the Qwen3.5 vision tower (``Qwen3_5VisionModel`` of transformers): a patch embedding,
learned positions resampled to the picture's grid, transformer blocks with an axial rotation and
full attention, and a merger that makes four patches one token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.vision.preparing import Grid
from model.vision.tower_config import VisionConfig

_EPS = 1e-6
_THETA = 10000.0


@dataclass(frozen=True)
class Encoder:
    """The tower under the names of ``tower_config.vision_shapes``, ready to run."""

    config: VisionConfig
    tensors: Mapping[str, Tensor]

    def __call__(self, patches: Tensor, grid: Grid) -> Tensor:
        """Return the embeddings ``[tokens, out_hidden_size]`` of one picture.

        ``patches`` are as ``Preparing.patches`` gives them. Computes in the weights' dtype.
        """
        weight = self.tensors["patch_embed.proj.weight"]
        x = patches.to(weight) @ weight.flatten(1).T + self.tensors["patch_embed.proj.bias"]
        x = x + self._positions(grid).to(x)
        cos, sin = self._rotation(grid)
        for index in range(self.config.depth):
            x = self._block(f"blocks.{index}.", x, cos, sin)
        x = self._norm("merger.norm", x).reshape(grid.tokens, -1)
        return self._linear("merger.linear_fc2", F.gelu(self._linear("merger.linear_fc1", x)))

    def _block(self, name: str, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self._attention(name + "attn.", self._norm(name + "norm1", x), cos, sin)
        wide = self._linear(name + "mlp.linear_fc1", self._norm(name + "norm2", x))
        return x + self._linear(name + "mlp.linear_fc2", F.gelu(wide, approximate="tanh"))

    def _attention(self, name: str, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        heads = self.config.num_heads
        joined = self._linear(name + "qkv", x).reshape(len(x), 3, heads, -1)
        query, key, value = joined.permute(1, 2, 0, 3).unbind()
        query, key = _turn(query, cos, sin), _turn(key, cos, sin)
        mixed = F.scaled_dot_product_attention(query[None], key[None], value[None])[0]
        return self._linear(name + "proj", mixed.transpose(0, 1).reshape(len(x), -1))

    def _positions(self, grid: Grid) -> Tensor:
        """Resample the learned grid of positions to the picture's patches, bilinearly."""
        table, side = self.tensors["pos_embed.weight"].float(), self.config.positions_side
        m = self.config.spatial_merge_size
        square = table.T.reshape(1, -1, side, side)
        size = (grid.rows * m, grid.columns * m)
        resampled = F.interpolate(square, size, mode="bilinear", align_corners=True)[0]
        cut = resampled.reshape(-1, grid.rows, m, grid.columns, m).permute(1, 3, 2, 4, 0)
        return cut.reshape(grid.tokens * m * m, -1)

    def _rotation(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """Return cosines and sines ``[patches, head_dim / 2]``: rows turn the first half of the
        frequencies, columns the second."""
        m, device = self.config.spatial_merge_size, self.tensors["pos_embed.weight"].device
        part = self.config.hidden_size // self.config.num_heads // 2
        speed = 1.0 / _THETA ** (torch.arange(0, part, 2, device=device).float() / part)
        rows = torch.arange(grid.rows * m, device=device)[:, None].expand(-1, grid.columns * m)
        columns = torch.arange(grid.columns * m, device=device).expand(grid.rows * m, -1)
        both = torch.stack([rows, columns], -1).reshape(grid.rows, m, grid.columns, m, 2)
        places = both.permute(0, 2, 1, 3, 4).reshape(-1, 2, 1)
        angles = (places.float() * speed).flatten(1)
        return angles.cos(), angles.sin()

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.tensors[name + ".weight"], self.tensors[name + ".bias"]
        return F.layer_norm(x, weight.shape, weight, bias, _EPS)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.tensors[name + ".weight"], self.tensors[name + ".bias"])


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn ``x [heads, patches, dim]``; dimension ``i`` pairs with ``i + dim / 2``."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)
