"""What the isolated sandboxes keep in: rights, network, memory, processes, files."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from sandboxes.base import ExecResult, Limits, Sandbox
from sandboxes.errors import ImageMissing, SandboxGone, SandboxUnavailable
from sandboxes.images.base_image import ensure_base_image
from sandboxes.mounts import parse_mount
from sandboxes.open import open_sandbox
from sandboxes.workspace.workspace import Workspace

OpenSandbox = Callable[..., Sandbox]
SMALL = Limits(memory_mb=256, pids=64, cpus=1.0, disk_mb=64)


@pytest.fixture(
    scope="module", params=[pytest.param("docker", marks=pytest.mark.docker), "bubblewrap"]
)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind that isolates."""
    return str(request.param)


def output(sandbox: Sandbox, command: str) -> str:
    return sandbox.shell().run(command, timeout_s=60).output


def test_no_rights(sandbox: Sandbox) -> None:
    status = output(sandbox, "cat /proc/self/status")
    assert "CapEff:\t0000000000000000" in status
    assert "CapPrm:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert output(sandbox, "id -u").strip() != "0"


def test_only_the_workspace_and_scratch_can_be_written(sandbox: Sandbox) -> None:
    script = 'for d in / /etc /usr /usr/bin /home /var /proc /sys /dev; do touch "$d/x"; done'
    result = sandbox.shell().run(f"({script}) 2>/dev/null; ls /x /*/x /usr/bin/x", timeout_s=60)
    assert result.exit_code != 0
    assert output(sandbox, "touch /tmp/x ~/x x && ls /tmp/x ~/x x").split() == [
        *("/home/agent/x", "/tmp/x", "x"),
    ]
    assert output(sandbox, "cp /bin/true /tmp/t && /tmp/t && echo runs") == "runs\n"


def test_nothing_of_the_host_is_there(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "host").write_text("x")
    for path in (tmp_path, "/root/.ssh", "/var/run/docker.sock"):
        assert sandbox.shell().run(f"ls '{path}'", timeout_s=60).exit_code != 0
    assert str(os.getpid()) not in output(sandbox, "ls /proc").split()
    assert "agent" in output(sandbox, "whoami; cut -d: -f1 /etc/passwd")


def test_no_network(sandbox: Sandbox) -> None:
    assert output(sandbox, "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '") == "lo\n"
    connect = "exec 9<>/dev/tcp/10.255.255.53/53"
    assert sandbox.shell().run(f"({connect})", timeout_s=30).exit_code not in (0, None)


def test_files_written_from_both_sides_stay_writable(sandbox: Sandbox) -> None:
    sandbox.write_bytes("made/outside", b"1")
    assert output(sandbox, "echo 2 >>made/outside; echo 3 >made/inside; rm a.py; ls made") == (
        "inside\noutside\n"
    )
    sandbox.write_bytes("made/inside", b"4")
    assert output(sandbox, "cat made/*; touch made/again; chmod 700 made; rm made/inside") == (
        "412\n"
    )


def test_a_fork_bomb_is_contained_and_stopped(kind: str, open_kind: OpenSandbox) -> None:
    sandbox = open_kind(kind, limits=SMALL)
    # No process limit per group where this process may make no control group.
    bomb = "i=0; while ((i++ < 10000)); do (sleep 1000) & done 2>/dev/null; echo all; sleep 1000"
    result = sandbox.shell().run(bomb, timeout_s=3)
    assert result.exit_code is None and result.timed_out
    assert output(sandbox, "ls -d /proc/[0-9]* | wc -l") in ("4\n", "5\n")
    if kind == "docker" or os.geteuid() != 0 or _has_cgroup(sandbox):
        counted = sandbox.shell().run(
            "n=0; while ((n < 200)) && (true); do sleep 1000 & ((++n)); done 2>/dev/null; "
            "ls -d /proc/[0-9]* | wc -l",
            timeout_s=3,
        )
        assert "200" not in counted.output


def _has_cgroup(sandbox: Sandbox) -> bool:
    return bool(getattr(sandbox, "_cgroup").folders)  # noqa: B009 - private on purpose


def test_closing_removes_the_control_group(open_kind: OpenSandbox) -> None:
    sandbox = open_kind("bubblewrap", limits=SMALL)
    if not _has_cgroup(sandbox):
        pytest.skip("this process may make no control group")
    group = getattr(sandbox, "_cgroup")  # noqa: B009 - private on purpose
    output(sandbox, "for i in 1 2 3; do sleep 1000 & done")
    sandbox.close()
    assert [folder for folder in group.folders if folder.exists()] == []


def test_a_bomb_that_doubles(kind: str, open_kind: OpenSandbox) -> None:
    sandbox = open_kind(kind, limits=SMALL)
    result = sandbox.shell().run("f() { f | f & }; f; wait; sleep 1000", timeout_s=2)
    assert result.exit_code is None or result.exit_code != 0
    assert output(sandbox, "echo fine") == "fine\n"
    assert int(output(sandbox, "ls -d /proc/[0-9]* | wc -l")) < 10


def test_a_memory_hog_is_killed_alone(kind: str, open_kind: OpenSandbox) -> None:
    sandbox = open_kind(kind, limits=SMALL)
    hog = "python3 -c \"x = bytearray(1 << 30); x[::4096] = b'1' * (1 << 18); print('had', 'it')\""
    result = sandbox.shell().run(f"export KEPT=1; {hog}", timeout_s=60)
    assert result.exit_code not in (0, None)
    assert "had it" not in result.output
    assert output(sandbox, "echo kept:$KEPT") == "kept:1\n"


def test_a_file_cannot_grow_past_the_limit(kind: str, open_kind: OpenSandbox) -> None:
    sandbox = open_kind(kind, limits=SMALL)
    result = sandbox.shell().run("head -c 100000000 /dev/zero >big", timeout_s=60)
    assert result.exit_code not in (0, None)
    assert (sandbox.workspace.path / "big").stat().st_size <= 64 * 1024**2


def test_killing_everything_inside_is_a_dead_shell_and_no_more(sandbox: Sandbox) -> None:
    result = sandbox.shell().run("echo before; kill -9 -1; echo after", timeout_s=60)
    # From process 1's namespace, -1 spares the caller; a child of it has the whole effect.
    result = sandbox.shell().run("echo before; bash -c 'kill -9 -1'; sleep 1000", timeout_s=60)
    assert (result.output, result.shell_died) == ("before\n", True)
    assert output(sandbox, "kill -9 1; echo alive") == "alive\n"


def test_zombies_are_collected(sandbox: Sandbox) -> None:
    output(sandbox, "for i in {1..20}; do (setsid sh -c 'true' &) ; done; wait")
    script = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l"
    for _ in range(100):
        left = output(sandbox, script)
        if left == "0\n":
            break
    assert left == "0\n"


@pytest.mark.docker
def test_the_container_is_made_as_promised(
    docker_engine: docker.DockerClient, open_kind: OpenSandbox
) -> None:
    sandbox = open_kind("docker", limits=SMALL)
    found = [
        c
        for c in docker_engine.containers.list(filters={"label": "tenuto.session=test"})
        if str(sandbox.workspace.path) in [mount["Source"] for mount in c.attrs["Mounts"]]
    ]
    assert len(found) == 1
    host, config = found[0].attrs["HostConfig"], found[0].attrs["Config"]
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["Privileged"]) == (
        "none",
        True,
        False,
    )
    assert host["CapDrop"] == ["ALL"] and not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Memory"] == host["MemorySwap"] == 256 * 1024**2
    assert (host["PidsLimit"], host["NanoCpus"], host["AutoRemove"]) == (64, 10**9, True)
    assert set(host["Tmpfs"]) == {"/tmp", "/home/agent"}
    assert config["User"] != "0:0" or os.geteuid() != 0
    mounts = {m["Destination"]: (m["RW"], m["Source"]) for m in found[0].attrs["Mounts"]}
    assert mounts == {
        "/workspace": (True, str(sandbox.workspace.path)),
        "/outputs": (False, str(sandbox.workspace.outputs)),
    }


def test_mounts_and_variables_are_those_that_were_given(
    kind: str,
    git_repo: Callable[..., Path],
    places: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    if kind == "docker":
        request.getfixturevalue("base_image")
    data, scratch = tmp_path / "data", tmp_path / "scratch"
    for folder in (data, scratch):
        folder.mkdir()
        folder.chmod(0o777)
    (data / "a").write_text("from the host\n")
    workspace = Workspace.create(git_repo({"a": "1"}), parent=places)
    mounts = [parse_mount(f"{data}:/data"), parse_mount(f"{scratch}:/scratch:rw")]
    with open_sandbox(kind, workspace, mounts=mounts, environment={"GIVEN": "x y"}) as sandbox:
        said = output(sandbox, "cat /data/a; echo $GIVEN; echo 2 >/data/a; echo 3 >/scratch/b")
    assert said.startswith("from the host\nx y\n") and "Read-only file system" in said
    assert (data / "a").read_text() == "from the host\n"
    assert (scratch / "b").read_text() == "3\n"


@pytest.mark.docker
def test_network_when_asked_for(open_kind: OpenSandbox) -> None:
    sandbox = open_kind("docker", limits=Limits(network=True))
    assert "eth0" in output(sandbox, "cat /proc/net/dev")


@pytest.mark.docker
@pytest.mark.parametrize("how", ["kill", "remove"])
def test_a_container_that_dies_is_sandbox_gone(
    how: str, docker_engine: docker.DockerClient, open_kind: OpenSandbox
) -> None:
    sandbox = open_kind("docker")
    shell = sandbox.shell()
    shell.run("true", timeout_s=20)
    container = next(
        c
        for c in docker_engine.containers.list(filters={"label": "tenuto.session=test"})
        if str(sandbox.workspace.path) in [mount["Source"] for mount in c.attrs["Mounts"]]
    )

    def end(text: str) -> None:
        if how == "kill":
            container.kill()
        else:
            container.remove(force=True)

    with pytest.raises(SandboxGone) as caught:
        shell.run("echo started; sleep 1000", timeout_s=60, on_output=end)
    assert "\n" not in str(caught.value)
    with pytest.raises(SandboxGone):
        shell.run("true", timeout_s=20)


@pytest.mark.docker
def test_an_image_that_is_not_there(open_kind: OpenSandbox, places: Path) -> None:
    with pytest.raises(ImageMissing, match="docker pull nobody/nothing:9"):
        open_kind("docker", image="nobody/nothing:9")
    assert list(places.glob("*")) == []


@pytest.mark.docker
def test_an_image_without_bash(
    docker_engine: docker.DockerClient, open_kind: OpenSandbox, places: Path
) -> None:
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    docker_engine.api.import_image_from_data(
        empty.getvalue(), repository="tenuto/test-empty", tag="1"
    )
    try:
        with pytest.raises(ImageMissing, match="has no bash"):
            open_kind("docker", image="tenuto/test-empty:1")
        assert list(places.glob("*")) == []
    finally:
        docker_engine.images.remove("tenuto/test-empty:1", force=True)


@pytest.mark.docker
def test_the_base_image_has_what_it_should(base_image: str, open_kind: OpenSandbox) -> None:
    assert ensure_base_image() == base_image
    shell = open_kind("docker").shell()
    for command in (
        "python3 -m pytest --version",
        "python --version",
        "git --version",
        "rg --version",
        "patch --version",
        "python3 -m pip --version && python3 -c 'import ensurepip, venv'",
    ):
        result: ExecResult = shell.run(command, timeout_s=120)
        assert result.exit_code == 0, result.output


def test_bubblewrap_missing_or_forbidden(
    git_repo: Callable[..., Path], places: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repo = git_repo({"a": "1"})
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("git", "rm", "sh", "bash"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap"):
        open_sandbox("bubblewrap", Workspace.create(repo, parent=places))
    refusing = programs / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace'\nexit 1\n")
    refusing.chmod(0o755)
    with pytest.raises(SandboxUnavailable, match=r"No permissions.*unprivileged user"):
        open_sandbox("bubblewrap", Workspace.create(repo, parent=places))
    assert list(places.glob("*")) == []


@pytest.mark.docker
def test_a_base_image_that_cannot_be_built(
    docker_engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No registry answers for an address nobody has, and there is no debootstrap on this PATH."""
    monkeypatch.setattr("sandboxes.images.base_image.PARENT_IMAGE", "registry.invalid/nothing:1")
    monkeypatch.setattr("sandboxes.images.base_image.BASE_TAG", "tenuto/never-built:1")
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    with pytest.raises(ImageMissing, match="no image registry answers") as caught:
        ensure_base_image(said.append)
    assert "\n" not in str(caught.value)


def test_no_engine(
    git_repo: Callable[..., Path], places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{places}/none.sock")
    workspace = Workspace.create(git_repo({"a": "1"}), parent=places)
    with pytest.raises(SandboxUnavailable):
        open_sandbox("docker", workspace)
    assert list(places.glob("*")) == []


def test_an_unknown_kind(git_repo: Callable[..., Path], places: Path) -> None:
    workspace = Workspace.create(git_repo({"a": "1"}), parent=places)
    with pytest.raises(SandboxUnavailable, match="docker, bubblewrap, local"):
        open_sandbox("chroot", workspace)
    assert list(places.glob("*")) == []
