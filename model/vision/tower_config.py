"""The vision tower's configuration and the names and shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.errors import CheckpointError

_MOST_DEPTH = 256
_MOST_SIZE = 1 << 17
_ACTIVATION = "gelu_pytorch_tanh"
_FIRST = "patch_embed.proj.weight"


@dataclass(frozen=True)
class VisionConfig:
    """The dimensions of a vision tower, under Hugging Face's names where it has them."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_hidden_size: int
    num_position_embeddings: int = 2304
    patch_size: int = 16
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2

    @property
    def positions_side(self) -> int:
        """The side of the square of learned positions."""
        return math.isqrt(self.num_position_embeddings)

    @classmethod
    def of(cls, given: Mapping[str, Any], hidden_size: int) -> VisionConfig | None:
        """Read the tower from a parsed ``config.json``; None if the model has none.

        ``hidden_size`` is the language model's. Raises ``CheckpointError`` if it cannot be run.
        """
        vision = given.get("vision_config")
        if not isinstance(vision, Mapping) or "depth" not in vision:
            return None
        try:
            made = cls(
                depth=int(vision["depth"]),
                hidden_size=int(vision["hidden_size"]),
                intermediate_size=int(vision["intermediate_size"]),
                num_heads=int(vision["num_heads"]),
                out_hidden_size=int(vision.get("out_hidden_size", hidden_size)),
                num_position_embeddings=int(vision.get("num_position_embeddings", 2304)),
                patch_size=int(vision.get("patch_size", 16)),
                temporal_patch_size=int(vision.get("temporal_patch_size", 2)),
                spatial_merge_size=int(vision.get("spatial_merge_size", 2)),
            )
        except KeyError as error:
            raise CheckpointError(f"vision_config lacks {error}") from error
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"vision_config has a wrong value: {error}") from error
        if vision.get("hidden_act", _ACTIVATION) != _ACTIVATION:
            raise CheckpointError(f"vision_config: hidden_act must be {_ACTIVATION}")
        if vision.get("deepstack_visual_indexes"):
            raise CheckpointError("vision_config: deepstack layers are not supported")
        made.check(hidden_size)
        return made

    def check(self, hidden_size: int) -> None:
        """Raise ``CheckpointError`` if the encoder would compute such a tower wrongly."""
        sizes = [size for name, size in vars(self).items() if name != "depth"]
        rules = {
            f"its depth must be from 1 to {_MOST_DEPTH}": 0 < self.depth <= _MOST_DEPTH,
            f"its sizes must be from 1 to {_MOST_SIZE:,}": all(0 < n <= _MOST_SIZE for n in sizes),
        }
        if all(rules.values()):
            rules |= {
                "a head must have a multiple of 4 dimensions": self.hidden_size
                % (4 * self.num_heads)
                == 0,
                "its positions must be a square": self.positions_side**2
                == self.num_position_embeddings,
                f"its embeddings have {self.out_hidden_size} numbers, the model's {hidden_size};"
                " they are of different checkpoints": self.out_hidden_size == hidden_size,
            }
        for rule, holds in rules.items():
            if not holds:
                raise CheckpointError(f"the vision tower cannot be used: {rule}")


def vision_shapes(config: VisionConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor of the tower, without ``model.visual.``."""
    c = config
    hidden, wide = c.hidden_size, c.intermediate_size
    merged = hidden * c.spatial_merge_size**2
    shapes: dict[str, tuple[int, ...]] = {
        _FIRST: (hidden, 3, c.temporal_patch_size, c.patch_size, c.patch_size),
        "patch_embed.proj.bias": (hidden,),
        "pos_embed.weight": (c.num_position_embeddings, hidden),
    }

    def add(name: str, *shape: int) -> None:
        shapes[name + ".weight"] = shape
        shapes[name + ".bias"] = shape[:1]

    for index in range(c.depth):
        block = f"blocks.{index}."
        add(block + "norm1", hidden)
        add(block + "norm2", hidden)
        add(block + "attn.qkv", 3 * hidden, hidden)
        add(block + "attn.proj", hidden, hidden)
        add(block + "mlp.linear_fc1", wide, hidden)
        add(block + "mlp.linear_fc2", hidden, wide)
    add("merger.norm", hidden)
    add("merger.linear_fc1", merged, merged)
    add("merger.linear_fc2", c.out_hidden_size, merged)
    return shapes
