"""Hatchling's hook: puts compiled libraries into the wheel, if ``NATIVE_LIBRARIES`` names them.

Without that variable the wheel is pure Python and needs no compiler anywhere.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TAG = "py3-none-manylinux_2_28_x86_64"
"""The libraries ask for no symbol of glibc newer than 2.27; ``build_wheel.py`` checks that."""


class NativeLibraries(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the libraries of a folder to the wheel and says for which machines it is then."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add them. hatchling calls this before it builds."""
        folder = os.environ.get("NATIVE_LIBRARIES")
        if folder:
            build_data["pure_python"] = False
            build_data["tag"] = TAG
            for file in sorted(Path(folder).glob("*.so")):
                build_data["force_include"][str(file)] = f"kernels/native/lib/{file.name}"
