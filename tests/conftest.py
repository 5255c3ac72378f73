"""Fixtures that tests of several folders share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import docker
import docker.errors
import pytest

GitRepo = Callable[..., Path]


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[docker.DockerClient]:
    """A client of a running Docker engine.

    Without one the test is skipped, or fails if ``TENUTO_REQUIRE_DOCKER`` is 1, so that a machine
    that should have Docker cannot pass by skipping.
    """
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        if os.environ.get("TENUTO_REQUIRE_DOCKER") == "1":
            pytest.fail(f"TENUTO_REQUIRE_DOCKER=1 but no Docker engine answers: {error}")
        pytest.skip("no Docker engine answers")
    yield client
    client.close()


@pytest.fixture
def git_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which git knows nothing of the person who runs the tests."""
    home = tmp_path_factory.mktemp("git-home")
    kept = {key: os.environ[key] for key in ("PATH", "TMPDIR") if key in os.environ}
    return kept | {
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "Ada Author",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_AUTHOR_DATE": "2024-01-02T03:04:05Z",
        "GIT_COMMITTER_NAME": "Ada Author",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
        "GIT_COMMITTER_DATE": "2024-01-02T03:04:05Z",
    }


@pytest.fixture
def git(git_env: dict[str, str]) -> Callable[..., str]:
    """``git(repo, "status", "--porcelain")`` runs git there and returns what it printed."""

    def run(repo: Path, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=repo, env=git_env, capture_output=True, check=False
        )
        assert done.returncode == 0, f"git {arguments}: {done.stderr.decode()}"
        return done.stdout.decode("utf-8", "surrogateescape")

    return run


@pytest.fixture
def git_repo(tmp_path: Path, git: Callable[..., str]) -> GitRepo:
    """``git_repo({"a.py": "x = 1\\n"}, name="repo", commit=True)`` makes a real repository.

    File contents are text or bytes. With ``commit=False`` nothing is committed; with no files and
    ``commit=True`` there is one empty commit. ``name`` may hold spaces and any Unicode.
    """

    def make(
        files: Mapping[str, str | bytes] | None = None,
        *,
        name: str = "repo",
        commit: bool = True,
    ) -> Path:
        repo = tmp_path / name
        repo.mkdir(parents=True)
        git(repo, "init", "--quiet", "--initial-branch=main")
        for path, content in (files or {}).items():
            target = repo / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode() if isinstance(content, str) else content)
        if commit:
            git(repo, "add", "--all")
            git(repo, "commit", "--quiet", "--allow-empty", "--message", "first")
        return repo

    return make
