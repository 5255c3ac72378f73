"""Docker in trouble is one line that says what to do."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import docker.errors
import pytest

from sandboxes.errors import SandboxGone, SandboxUnavailable
from sandboxes.images import engine
from sandboxes.images.base_image import dockerfile
from sandboxes.images.image_tags import BASE_TAG, BROWSER_TAG


def one_line(action: Callable[[], object]) -> str:
    with pytest.raises(SandboxUnavailable) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``DOCKER_HOST`` names a socket that is not there."""
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


def test_not_installed(no_engine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("docker") is None
    assert "not installed" in one_line(engine.connect)


def test_not_running(no_engine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "does not run" in one_line(engine.connect)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(no_engine))
    assert "does not run" in one_line(engine.connect)


def test_no_permission() -> None:
    error = docker.errors.DockerException("Error while fetching server API version")
    error.__cause__ = OSError(13, "Permission denied")
    assert "docker group" in str(engine.engine_trouble(error))


def test_no_disk_space() -> None:
    error = docker.errors.APIError("x", explanation="write /var/lib: no space left on device")
    assert "no disk space" in str(engine.engine_trouble(error))


def test_a_container_that_is_gone() -> None:
    error = docker.errors.NotFound("x", explanation="No such container: abc")
    assert isinstance(engine.engine_trouble(error), SandboxGone)


@pytest.fixture
def rude_engine(no_engine: Path) -> Iterator[None]:
    """Something listens, but hangs up."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(no_engine))
    server.listen()

    def serve() -> None:
        while True:
            try:
                server.accept()[0].close()
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@pytest.mark.usefixtures("rude_engine")
def test_something_else_answers() -> None:
    assert "does not answer" in one_line(engine.connect)


def test_the_dockerfile_ends_as_the_debootstrap_image_does() -> None:
    text = dockerfile()
    assert text.startswith("FROM debian:bookworm-slim\n")
    assert "python3-pytest" in text and "LABEL tenuto.base=1" in text
    assert BASE_TAG == "tenuto/base:1"
    assert "chromium" not in text and "chromium-headless-shell" in dockerfile(BROWSER_TAG)
