"""Programs inside that try to get at the machine, each for real."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sandboxes.backends.disk_watch import disk_usage
from sandboxes.base import Limits, Sandbox

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


@pytest.mark.parametrize(
    "path",
    [
        *("/x", "/etc/x", "/usr/bin/x", "/home/x", "/var/x", "/dev/x", "/outputs/x", "/root/x"),
        *("/proc/x", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"),
        *(
            "/sys/x",
            "/sys/fs/cgroup/x",
            "/sys/fs/cgroup/pids/pids.max",
            "/sys/kernel/uevent_helper",
        ),
        *("/dev/sda", "/dev/mem", "/dev/kmsg", "/proc/1/root/x"),
    ],
)
def test_nothing_of_the_system_can_be_written(path: str, sandbox: Sandbox) -> None:
    # Opened and not written: were it allowed, it would change this machine.
    assert output(sandbox, f"(exec 9>>{path}) 2>/dev/null && echo OPENED") == ""


def test_docker_and_the_hosts_sockets_are_not_there(sandbox: Sandbox) -> None:
    look = "ls /var/run/docker.sock /run/docker.sock /run/containerd 2>/dev/null; "
    look += "find / -maxdepth 3 -type s -not -path '/proc/*' 2>/dev/null; "
    look += "env | grep -i -e docker -e ssh"
    assert output(sandbox, look) == ""


def test_what_listens_on_the_host_is_not_reached(sandbox: Sandbox) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        addresses = {"127.0.0.1", "172.17.0.1", *socket.gethostbyname_ex(socket.gethostname())[2]}
        for address in addresses:
            tried = f"(exec 9<>/dev/tcp/{address}/{port}) 2>/dev/null && echo REACHED"
            assert output(sandbox, tried) == ""
        # Nor by the abstract sockets that a shared network namespace would share.
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


def test_the_hosts_secrets_are_not_read(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_TOKEN", "a-secret-of-the-host")
    look = "cat /proc/*/environ /proc/1/cmdline /etc/shadow ~/.netrc /root/.ssh/* 2>/dev/null "
    look += "| tr '\\0' '\\n' | grep -e a-secret-of-the-host -e '^root:[^x]'"
    assert output(sandbox, look) == ""


def test_new_rights_are_not_had(sandbox: Sandbox) -> None:
    for attempt in (
        "unshare --mount true",
        "mount -t tmpfs none /mnt",
        "chroot / true",
        "su -c true",
        "mknod /tmp/sda b 8 0",
        "cp /bin/bash /tmp/b && chmod u+s /tmp/b && /tmp/b -p -c '(($EUID == 0))'",
        "python3 -c 'import os; os.setuid(0)'",
        "kill -9 1; sleep 0.1; ((0))",
    ):
        tried = f"( {attempt} ) >/dev/null 2>&1 && id -u && echo HAD"
        said = output(sandbox, tried)
        assert "HAD" not in said, attempt


def test_a_disk_filler_of_many_files_is_stopped_and_told(kind: str, open_kind: OpenSandbox) -> None:
    sandbox = open_kind(kind, limits=SMALL)
    fill = "for i in {1..100}; do head -c 4M /dev/zero >f$i; done; sleep 1000"
    result = sandbox.shell().run(fill, timeout_s=50)
    assert result.shell_died and "over its limit of 64 MB" in result.cause
    assert disk_usage(sandbox.workspace.path) < 3_000_000_000
    # What is there can be removed, and the work goes on.
    assert output(sandbox, "rm f* && echo removed") == "removed\n"
    assert output(sandbox, "echo fine >a.py && cat a.py") == "fine\n"


def test_a_disk_filler_in_the_background_is_stopped_too(kind: str, open_kind: OpenSandbox) -> None:
    sandbox = open_kind(kind, limits=SMALL)
    fill = "i=0; while ((++i)); do head -c 4M /dev/zero >f$i; done"
    sandbox.shell().run(f"setsid bash -c '{fill}' >/dev/null 2>&1 &", timeout_s=30)
    told = threading.Event()
    for _ in range(200):
        if sandbox.trouble():  # type: ignore[attr-defined]
            told.set()
            break
        told.wait(0.1)
    assert told.is_set()
    # It is told and then killed; from then on nothing grows.
    told.clear()
    sizes = [disk_usage(sandbox.workspace.path)]
    for _ in range(40):
        told.wait(0.25)
        sizes.append(disk_usage(sandbox.workspace.path))
        if len(set(sizes[-3:])) == 1 and len(sizes) >= 3:
            break
    assert len(set(sizes[-3:])) == 1


@pytest.mark.parametrize("place", ["/tmp", "~", "/dev/shm"])
def test_what_is_in_memory_is_bounded(place: str, kind: str, open_kind: OpenSandbox) -> None:
    sandbox = open_kind(kind, limits=replace(SMALL, disk_mb=4096))
    said = output(sandbox, f"head -c 600M /dev/zero >{place}/big; echo; stat -c %s {place}/big")
    assert int(said.split()[-1]) <= 260 * 1024**2 if said.split()[-1].isdigit() else True
    sandbox.shell().close()
    assert output(sandbox, f"rm -f {place}/big; echo fine") == "fine\n"


def test_a_hostile_repository_inside_runs_nothing_outside(sandbox: Sandbox, tmp_path: Path) -> None:
    flag = tmp_path / "owned"
    plant = (
        f"printf '#!/bin/sh\\ntouch {flag}\\n' >evil; chmod 755 evil; "
        "git config core.fsmonitor $PWD/evil; git config core.hooksPath $PWD; "
        "git config filter.e.clean $PWD/evil; git config diff.external $PWD/evil; "
        "echo '* filter=e diff=e' >.gitattributes; cp evil pre-commit; cp evil post-checkout; "
        "git init -q sub/inner; "
        "printf '[submodule \"x\"]\\npath=x\\nurl=ext::evil\\n' >.gitmodules; "
        "ln -s / slash; ln -s ../../.. up; touch $'new\\nline'; mkfifo .gitignore 2>/dev/null"
    )
    output(sandbox, plant)
    checkpoint = sandbox.workspace.checkpoint()
    patch = sandbox.workspace.diff()
    sandbox.workspace.rollback(checkpoint)
    assert '"b/new\\nline"' in patch and "b/slash" in patch
    assert not flag.exists() and not os.path.lexists(f"{flag}")


def test_no_user_namespace_is_had_in_a_sandbox(sandbox: Sandbox) -> None:
    cgroups = (
        "mkdir /tmp/cg; mount -t cgroup -o freezer x /tmp/cg && ls /tmp/cg; "
        "mount -t cgroup2 x /tmp/cg && ls /tmp/cg"
    )
    clone = "import ctypes; print(ctypes.CDLL(None).{}(0x10000000))"
    for attempt in (
        f"unshare -UrmC bash -c '{cgroups}'",
        "unshare -U true",
        f"python3 -c '{clone.format('unshare')}' | grep -qx 0",
        "python3 -c 'import ctypes; "
        "print(ctypes.CDLL(None).syscall(56, 0x10000011, 0, 0, 0, 0))' | grep -qv -e -1",
    ):
        assert output(sandbox, f"( {attempt} ) >/dev/null 2>&1 && echo HAD") == "", attempt


def test_what_runs_inside_owns_nothing_of_the_host(sandbox: Sandbox) -> None:
    sandbox.shell().run("sleep 1000.75 & touch mine; chmod u+s mine", timeout_s=20)
    made = sandbox.workspace.path / "mine"
    if os.geteuid() == 0:
        assert made.stat().st_uid != 0
        found = [
            entry.stat().st_uid
            for entry in Path("/proc").iterdir()
            if entry.name.isdecimal() and b"1000.75" in _command_line(entry)
        ]
        assert found and 0 not in found


def test_the_kernels_keyrings_are_not_had(sandbox: Sandbox) -> None:
    # keyctl (search, read the session's), add_key and request_key; the arguments name real keys.
    numbers = {"x86_64": (250, 248, 249), "aarch64": (219, 217, 218)}[os.uname().machine]
    keyctl, add_key, request_key = numbers
    libc = "import ctypes; call = ctypes.CDLL(None).syscall; print(call({}))"
    for arguments in (
        f"{keyctl}, 0, -3, 1",
        f"{keyctl}, 3, -3, 0, 0",
        f"{keyctl}, 11, -3, 0, 0",
        f'{add_key}, b"user", b"x", b"y", 1, -3',
        f'{request_key}, b"user", b"x", 0, -3',
    ):
        asked = libc.format(arguments)
        assert output(sandbox, f"python3 -c '{asked}'") == "-1\n", arguments


def test_keys_of_the_host_are_not_listed(kind: str, open_kind: OpenSandbox) -> None:
    calls = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
    call = ctypes.CDLL(None).syscall
    # Into the keyring of this user, whatever session it is in; KEYCTL_UNLINK at the end.
    key = call(calls[0], b"user", b"tenuto-test-key", b"secret", 6, -4)
    assert key > 0
    try:
        assert output(open_kind(kind), "cat /proc/keys | grep -c tenuto-test-key") == "0\n"
    finally:
        call(calls[1], 9, key, -4)


@pytest.mark.parametrize("kind", ["bubblewrap"], indirect=False)
def test_sockets_that_no_network_namespace_holds_are_refused(
    kind: str, open_kind: OpenSandbox
) -> None:
    """AF_VSOCK, and io_uring, which would open one past the filter."""
    sandbox = open_kind(kind)
    tried = "python3 -c 'import socket; socket.socket(40, socket.SOCK_STREAM)' 2>&1 | tail -1"
    assert "Operation not permitted" in output(sandbox, tried)
    ring = "import ctypes; print(ctypes.CDLL(None, use_errno=True).syscall(425, 0, 0), "
    ring += "ctypes.get_errno())"
    assert output(sandbox, f"python3 -c '{ring}'") == "-1 38\n"
    pair = "import socket; socket.socket(socket.AF_INET6); socket.socketpair(); print(1)"
    assert output(sandbox, f"python3 -c '{pair}'") == "1\n"


def test_control_groups_are_not_had(sandbox: Sandbox) -> None:
    """Neither the host's nor the sandbox's own limits can be written, as whatever user."""
    tried = (
        "for f in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs "
        "/sys/fs/cgroup/*/memory.limit_in_bytes /sys/fs/cgroup/memory.max "
        "/sys/fs/cgroup/freezer/freezer.state /sys/fs/cgroup/cpuset/cpuset.cpus; do "
        "(echo 1 >>$f) 2>/dev/null && echo HAD $f; done; "
        "for k in cgroup cgroup2; do mkdir -p /tmp/cg; mount -t $k none /tmp/cg 2>/dev/null "
        "&& echo HAD $k; done"
    )
    assert output(sandbox, tried) == ""


def _command_line(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""
