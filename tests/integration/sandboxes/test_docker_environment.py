"""What of the user's Docker configuration commands in a container see."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxes.base import Limits, Sandbox

PROXY = "http://user:password@proxy.invalid:3128"


@pytest.mark.docker
@pytest.mark.parametrize("network", [False, True])
def test_the_configured_proxies_come_with_the_network_alone(
    network: bool,
    open_kind: Callable[..., Sandbox],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "docker"
    folder.mkdir()
    proxies = {"proxies": {"default": {"httpProxy": PROXY}}}
    (folder / "config.json").write_text(json.dumps(proxies))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    sandbox = open_kind("docker", limits=Limits(network=network))
    assert (PROXY in sandbox.shell().run("env", timeout_s=20).output) is network
