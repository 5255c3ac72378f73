"""Sandboxes of every kind over a small repository."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandboxes.base import Limits, Sandbox
from sandboxes.images.base_image import ensure_base_image
from sandboxes.open import open_sandbox
from sandboxes.workspace.workspace import Workspace

OpenSandbox = Callable[..., Sandbox]


@pytest.fixture(scope="session")
def base_image(docker_engine: object) -> str:
    """The base image, built now if need be."""
    return ensure_base_image()


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Where this test's workspaces lie."""
    return tmp_path / "places"


@pytest.fixture
def open_kind(
    request: pytest.FixtureRequest, git_repo: Callable[..., Path], places: Path
) -> Iterator[OpenSandbox]:
    """``open_kind("docker", limits=...)`` opens a sandbox that is closed at the end."""
    opened: list[Sandbox] = []
    repo: list[Path] = []

    def make(kind: str, *, limits: Limits | None = None, image: str | None = None) -> Sandbox:
        if kind == "docker":
            request.getfixturevalue("base_image")
        if kind == "bubblewrap" and shutil.which("bwrap") is None:
            pytest.skip("bubblewrap is not installed")
        if not repo:
            repo.append(git_repo({"a.py": "x = 1\n", "sub/b.py": "y = 1\n"}, name="a repo ☃"))
        workspace = Workspace.create(repo[0], parent=places)
        opened.append(open_sandbox(kind, workspace, limits=limits, image=image, name="test"))
        return opened[-1]

    yield make
    for sandbox in opened:
        sandbox.close()
    assert list(places.glob("*")) == []


@pytest.fixture(
    scope="module",
    params=[pytest.param("docker", marks=pytest.mark.docker), "bubblewrap", "local"],
)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of sandbox."""
    return str(request.param)


@pytest.fixture(scope="module")
def shared(
    kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sandbox]:
    """One sandbox of each kind for all tests of a module."""
    if kind == "docker":
        request.getfixturevalue("base_image")
    if kind == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    place = tmp_path_factory.mktemp("shared")
    repo = place / "a repo ☃"
    (repo / "sub").mkdir(parents=True)
    (repo / "a.py").write_text("x = 1\n")
    (repo / "sub" / "b.py").write_text("y = 1\n")
    environment = {"PATH": os.environ["PATH"], "HOME": str(place), "GIT_CONFIG_NOSYSTEM": "1"}
    for arguments in (
        ["init", "--quiet"],
        ["add", "--all"],
        ["-c", "user.name=A", "-c", "user.email=a@b.c", "commit", "--quiet", "-m", "first"],
    ):
        subprocess.run(["git", *arguments], cwd=repo, env=environment, check=True)
    workspace = Workspace.create(repo, parent=place / "places")
    with open_sandbox(kind, workspace, name="shared") as sandbox:
        yield sandbox
    assert list((place / "places").glob("*")) == []


@pytest.fixture
def sandbox(shared: Sandbox) -> Iterator[Sandbox]:
    """The shared sandbox with the files as they were at first."""
    checkpoint = shared.workspace.checkpoint()
    yield shared
    shared.workspace.rollback(checkpoint)
