"""After kill -9, nothing is left once the next start has cleaned up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from sandboxes.prune import prune
from sandboxes.shell.process_table import read_process
from sandboxes.workspace.workspace import Workspace

OWNER_SCRIPT = """
import sys
from pathlib import Path
from sandboxes.open import open_sandbox
from sandboxes.workspace.workspace import Workspace

kind, repo, parent = sys.argv[1:]
sandbox = open_sandbox(kind, Workspace.create(Path(repo), parent=Path(parent)), name="killed")
shell = sandbox.shell()
shell.run("setsid sleep 1000 & echo $! >left.pid", timeout_s=30)
print("ready", sandbox.workspace.path, flush=True)
shell.run("sleep 1000", timeout_s=600)
"""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_owner_leaves_nothing(
    stop: signal.Signals,
    kind: str,
    request: pytest.FixtureRequest,
    git_repo: Callable[..., Path],
    places: Path,
) -> None:
    if kind == "docker":
        request.getfixturevalue("base_image")
    repo = git_repo({"a.py": "1\n"})
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER_SCRIPT, kind, str(repo), str(places)],
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    try:
        ready = owner.stdout.readline().split(" ", 1)
        assert ready[0] == "ready"
    finally:
        owner.send_signal(stop)
        owner.wait()
        owner.stdout.close()
    removed = prune(parent=places)
    assert any(line.startswith("workspace ") for line in removed)
    assert list(places.glob("*")) == []
    if kind == "docker":
        client: docker.DockerClient = request.getfixturevalue("docker_engine")
        stamp = f"/{owner.pid}/"
        left = client.containers.list(all=True, filters={"label": "tenuto.session=killed"})
        assert [c.id for c in left if stamp in c.labels["tenuto.owner"]] == []
    assert _children_named("sleep 1000", owner.pid) == []


def test_what_a_living_process_uses_stays(git_repo: Callable[..., Path], places: Path) -> None:
    with Workspace.create(git_repo({"a.py": "1\n"}), parent=places) as workspace:
        prune(parent=places)
        assert (workspace.path / "a.py").exists()


def test_a_kill_while_the_copy_is_made(git_repo: Callable[..., Path], places: Path) -> None:
    places.mkdir()
    (places / "half").mkdir()
    (places / "half" / "tree").mkdir()
    code = (
        "import sys; from pathlib import Path; "
        "from sandboxes.workspace.workspace import write_stamp; "
        "write_stamp(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(places / "half")], check=True)
    (places / "odd.owner").write_text("not a stamp")
    (places / "odder.owner").symlink_to("not a stamp")
    assert prune(parent=places)[-1:] == ["workspace half"]
    assert sorted(p.name for p in places.iterdir()) == ["odd.owner", "odder.owner"]


def test_nothing_to_do(tmp_path: Path) -> None:
    assert [line for line in prune(parent=tmp_path / "none") if "workspace" in line] == []


def _children_named(command: str, owner: int) -> list[int]:
    """Living processes with this command line that carry the stamp of ``owner``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").strip()
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            process = read_process(int(entry.name))
            ours = line == command.encode() and f"/{owner}/".encode() in environment
            if ours and process is not None and not process.zombie:
                found.append(process.pid)
    return found
