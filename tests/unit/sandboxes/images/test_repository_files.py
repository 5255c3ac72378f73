"""Files that a repository names for its image: nothing of git's own folder goes into one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxes.base import Limits
from sandboxes.errors import ImageMissing
from sandboxes.images.repository_image import ImageRecipe, image_of


@pytest.mark.parametrize(
    "recipe",
    [
        {"setup": ("true",), "files": (".git/config",)},
        {"setup": ("true",), "files": (".git",)},
        {"setup": ("true",), "files": (".GIT/config",)},
        {"setup": ("true",), "files": ("sub/../.git/config",)},
        {"setup": ("true",), "files": ("link",)},
        {"dockerfile": ".git/config"},
        {"devcontainer": ".git/config"},
    ],
)
def test_nothing_of_git_goes_into_an_image(
    recipe: dict[str, object], git_repo: Callable[..., Path]
) -> None:
    repo = git_repo({"sub/x": ""})
    (repo / "link").symlink_to(".git/config")
    image = None if "setup" not in recipe else "made-up:tag"
    with pytest.raises(ImageMissing):
        image_of(ImageRecipe(repo, image=image, **recipe), build=True, limits=Limits())  # type: ignore[arg-type]
