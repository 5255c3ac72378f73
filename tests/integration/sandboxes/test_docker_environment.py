"""What of the user's Docker configuration commands in a container see."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxes.base import Limits, Sandbox
from sandboxes.errors import SandboxUnavailable
from sandboxes.open import open_sandbox
from sandboxes.workspace.workspace import Workspace

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


@pytest.mark.docker
def test_the_workspace_may_lie_where_an_image_expects_it_with_what_was_built_in_it(
    git_repo: Callable[..., Path], places: Path, base_image: str
) -> None:
    repo = git_repo({"a.py": "x = 1\n", ".gitignore": "*.so\n"}, name="built")
    (repo / "fast.so").write_bytes(b"\x7fELF")
    workspace = Workspace.create(repo, parent=places, ignored=True)
    with open_sandbox(
        "docker", workspace, image=base_image, root="/testbed", search_path="/opt/env/bin"
    ) as sandbox:
        assert sandbox.root == "/testbed"
        said = sandbox.shell().run("pwd; ls; echo $PATH; python3 -c 'import a'", timeout_s=20)
        assert said.output == (
            "/testbed\na.py\nfast.so\n/opt/env/bin:/usr/local/bin:/usr/bin:/bin\n"
        )
        sandbox.write_bytes("/testbed/fast.so", b"changed")
        assert sandbox.workspace.diff() == ""
        sandbox.write_bytes("/testbed/a.py", b"x = 2\n")
        assert "+x = 2" in sandbox.workspace.diff()


def test_another_root_is_refused_where_there_is_none(
    git_repo: Callable[..., Path], places: Path
) -> None:
    workspace = Workspace.create(git_repo({"a.py": ""}), parent=places)
    with pytest.raises(SandboxUnavailable, match="use docker"):
        open_sandbox("local", workspace, root="/testbed")
    assert list(places.glob("*")) == []
