"""Write the tables of ggml's IQ types into ``model/checkpoint/gguf/grids.safetensors``.

Usage: python scripts/make_iq_grids.py. The tables are part of the file format; the gguf package
(MIT licence, Georgi Gerganov and contributors) has them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from gguf import quants
from safetensors.torch import save_file

NAMES = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S")


def main() -> None:
    """Write the file."""
    tables = {}
    for name in NAMES:
        kind = getattr(quants, name)
        kind.init_grid()
        tables[name.lower()] = torch.from_numpy(kind.grid).reshape(kind.grid_shape).to(torch.int8)
    target = Path(__file__).parents[1] / "model" / "checkpoint" / "gguf" / "grids.safetensors"
    save_file(tables, target)


if __name__ == "__main__":
    main()
