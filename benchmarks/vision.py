"""Seconds to see a screenshot: the vision encoder of the 27B's shape, ours and transformers'.

    python -m benchmarks.vision [--depth N] [--rounds N] [--record]

One picture of 1280 × 800 (1000 tokens) goes through a tower with the 27B's dimensions and random
weights, in float32 and in bfloat16, on the CPU: file to pixels to patches, and patches to
embeddings. transformers' own tower has the same weights and gets the same patches, in the same run
and with as many threads. The two take turns, and the fastest round of each counts.

Before anything is timed the embeddings in float32 must agree within 1e-4 of their largest. The
second look at the same picture is timed through ``Eyes``, which must not encode it again.
``--depth`` shortens the tower for a try; such a run is not recorded.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.support.recording import machine, record
from model.checkpoint.stored import StoredTensor
from model.vision.encoder import Encoder
from model.vision.eyes import Eyes, Tower
from model.vision.picture import read_picture
from model.vision.preparing import Grid, Preparing
from model.vision.tower_config import VisionConfig, vision_shapes

CONFIG = Path(__file__).parents[1] / "tests" / "golden" / "configs" / "qwen3_6_27b.config.json"
WIDTH, HEIGHT = 1280, 800
TOLERANCE = 1e-4
"""Of the largest embedding."""


def main() -> int:
    """Check, measure, print one JSON object, and record it if that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--depth", type=int, help="blocks of the tower (the 27B's: 27)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    config = shape(options.depth)
    found = measure(config, options.rounds)
    print(json.dumps(found, indent=1))
    if options.record:
        if options.depth is not None:
            print("a shortened tower is not recorded", file=sys.stderr)
            return 2
        record("vision", found)
    return 0


def shape(depth: int | None) -> VisionConfig:
    """Return the 27B's tower, with ``depth`` blocks if that is given."""
    given = json.loads(CONFIG.read_text(encoding="utf-8"))
    vision = dict(given["vision_config"])
    if depth is not None:
        vision["depth"] = depth
    made = VisionConfig.of({"vision_config": vision}, given["text_config"]["hidden_size"])
    assert made is not None
    return made


def measure(config: VisionConfig, rounds: int) -> dict[str, Any]:
    """Return the seconds of each part. Raises ``AssertionError`` if the two disagree."""
    file = screenshot()
    preparing = Preparing()
    patches, grid = preparing.patches(read_picture(file).pixels())
    tensors = weights(config)
    found: dict[str, Any] = {
        **machine("transformers", "pillow"),
        "tower": asdict(config),
        "picture": [WIDTH, HEIGHT],
        "tokens": grid.tokens,
        "threads": torch.get_num_threads(),
        "prepare_s": fastest(lambda: preparing.patches(read_picture(file).pixels()), rounds),
    }
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        found[name] = encode(config, tensors, patches.to(dtype), grid, rounds)
    found["second_look_s"] = second_look(config, tensors, preparing, file, grid)
    return found


def encode(
    config: VisionConfig, tensors: dict[str, Tensor], patches: Tensor, grid: Grid, rounds: int
) -> dict[str, float]:
    """Return the seconds of both towers in the dtype of ``patches``, and how far they are apart.

    Raises ``AssertionError`` if that is too far in float32.
    """
    dtype = patches.dtype
    ours = Encoder(config, {name: t.to(dtype) for name, t in tensors.items()})
    theirs = peer(config, tensors, dtype)
    grids = torch.tensor([[1, 2 * grid.rows, 2 * grid.columns]])
    one, two = ours(patches, grid), theirs(patches, grids).pooler_output
    apart = float((one - two).abs().max() / two.abs().max())
    if dtype is torch.float32:
        assert apart <= TOLERANCE, f"the towers differ by {apart:.2e} of the largest"
    parts: dict[str, Callable[[], object]] = {
        "ours_s": lambda: ours(patches, grid),
        "transformers_s": lambda: theirs(patches, grids),
    }
    return {"apart": apart, **taking_turns(parts, rounds)}


def second_look(
    config: VisionConfig, tensors: dict[str, Tensor], preparing: Preparing, file: bytes, grid: Grid
) -> float:
    """Return the seconds of encoding of a second look at the same pixels in another file."""
    stored = {
        name: StoredTensor(name, "fp32", tuple(t.shape), {"": t}, t) for name, t in tensors.items()
    }
    eyes = Eyes(Tower(config, preparing, stored), torch.float32, torch.device("cpu"))
    picture = read_picture(file)
    eyes.take(picture)
    first = eyes.rows(picture.digest)
    spent = eyes.encode_s
    again = io.BytesIO()
    Image.open(io.BytesIO(file)).save(again, "WEBP", lossless=True)
    same = read_picture(again.getvalue())
    assert len(eyes.take(same)) == grid.tokens
    assert eyes.rows(same.digest) is first and eyes.encoded == 1
    return eyes.encode_s - spent


def screenshot() -> bytes:
    """Return a PNG with flat areas, edges and text-like noise, as a screen has."""
    random = np.random.default_rng(0)
    page = np.full((HEIGHT, WIDTH, 3), 250, np.uint8)
    page[:60] = (40, 60, 90)
    page[60:, :240] = (230, 232, 236)
    for row in range(80, HEIGHT - 20, 18):
        ink = random.random((10, 900)) < 0.35
        page[row : row + 10, 280:1180][ink] = (30, 30, 30)
    file = io.BytesIO()
    Image.fromarray(page).save(file, "PNG")
    return file.getvalue()


def weights(config: VisionConfig) -> dict[str, Tensor]:
    """Return random float32 weights of the tower, small enough for 27 blocks."""
    random = torch.Generator().manual_seed(0)
    return {
        name: torch.ones(size)
        if "norm" in name and name.endswith("weight")
        else torch.randn(size, generator=random) * 0.02
        for name, size in vision_shapes(config).items()
    }


def peer(config: VisionConfig, tensors: dict[str, Tensor], dtype: torch.dtype) -> Any:
    """Return transformers' tower with the same weights; its attention is torch's own."""
    from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5VisionConfig
    from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5VisionModel

    given: Any = Qwen3_5VisionConfig(**asdict(config))
    given._attn_implementation = "sdpa"
    made: Any = Qwen3_5VisionModel(given)
    made.eval()
    made.load_state_dict(tensors)
    return made.to(dtype)


def taking_turns(parts: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the fastest round of each part, one round of each after the other."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, part in parts.items():
            times[name].append(fastest(part, 1))
    return {name: min(each) for name, each in times.items()}


def fastest(part: Callable[[], object], rounds: int) -> float:
    """Return the seconds of the fastest of ``rounds`` calls."""
    best = float("inf")
    for _ in range(rounds):
        started = perf_counter()
        part()
        best = min(best, perf_counter() - started)
    return best


if __name__ == "__main__":
    with torch.inference_mode():
        raise SystemExit(main())
