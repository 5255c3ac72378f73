"""The image that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.config import Settings
from agent.running import limits_of
from sandboxes.layers import Recipe, image_of


def image_for(settings: Settings, repo: Path, tell: Callable[[str], None]) -> str:
    """Its tag: found, or built where that is allowed. Raises ``SandboxError``."""
    recipe = Recipe(
        repo,
        image=settings.image,
        dockerfile=settings.dockerfile,
        devcontainer=settings.devcontainer,
        setup=settings.setup,
        files=settings.setup_files,
    )
    return image_of(recipe, build=settings.build, limits=limits_of(settings), on_progress=tell)
