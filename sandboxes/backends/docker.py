"""Commands in a Docker container without network, rights or a writable root.

The container's first process, the keeper, is a bash that answers a few questions on the attached
socket with builtins alone, so it works while a fork bomb leaves no process to be had. As process 1
it cannot be killed from inside, and it collects orphans, so no other init is needed. When our end
of the socket closes, however we end, the keeper ends, and with it the container, which the engine
removes.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import docker
import docker.errors
import docker.types
import requests.exceptions

from sandboxes.backends.common import OUTPUTS, CommonSandbox
from sandboxes.backends.environment import sandbox_environment
from sandboxes.backends.keeper import KEEPER, Keeper
from sandboxes.base import Limits
from sandboxes.errors import ImageMissing, SandboxGone, SandboxUnavailable
from sandboxes.images.base_image import has_image
from sandboxes.images.engine import OWNER_LABEL, SESSION_LABEL, connect, engine_trouble
from sandboxes.images.image_tags import BASE_TAG, build_command
from sandboxes.mounts import Mount
from sandboxes.paths import Owner
from sandboxes.shell.shell import Stream
from sandboxes.workspace.safe_tree import SafeTree
from sandboxes.workspace.workspace import Workspace

ROOT = "/workspace"
HOME = "/home/agent"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The account in a container of a host whose only account is root.
PLAIN_USER = (1000, 1000)
WRITE_TIMEOUT_S = 10.0
EXIT_CODE_WITHIN_S = 2.0
_OF_THE_ACCOUNT = frozenset(("HOME", "USER", "LOGNAME"))

_SDK_ERRORS = (docker.errors.DockerException, requests.exceptions.RequestException, OSError)


class DockerSandbox(CommonSandbox):
    """The ``Sandbox`` in a container (see ``base.py``)."""

    kind = "docker"

    def __init__(
        self,
        workspace: Workspace,
        *,
        image: str | None = None,
        limits: Limits | None = None,
        name: str = "",
        root: str = ROOT,
        search_path: str | None = None,
        mounts: Sequence[Mount] = (),
        environment: Mapping[str, str] | None = None,
        account: str | None = None,
    ) -> None:
        """Start the container.

        ``root`` is where the workspace lies in it; ``search_path`` goes before the image's
        ``PATH``. ``account`` is whom shells run as where the container is writable: a name or a
        number, None root. Raises ``SandboxUnavailable`` (no engine, or it refuses) and
        ``ImageMissing``.
        """
        super().__init__(workspace, limits, SafeTree(workspace.path, root=root))
        self.image = image or BASE_TAG
        self._search_path = search_path
        self._mounts = mounts
        self._environment = dict(environment or {})
        self._name = name
        self._account = account if self._limits.writable else None
        self._container = ""
        self._keeper: Keeper | None = None
        self._client = connect()
        try:
            user = self._settle_user()
            self._files.owner = user if os.geteuid() == 0 else None
            self._user = f"{user[0]}:{user[1]}"
        except _SDK_ERRORS as error:
            self._end()
            raise engine_trouble(error) from error
        self._begin()
        if self._account is not None and os.geteuid() == 0:
            self._files.owner = self._ids_of(self._account)
        self._ready(OUTPUTS)

    def start_shell(self, command: list[str], slot: int) -> Stream:
        self._guard().lives(1)
        try:
            made = self._client.api.exec_create(
                self._container,
                command,
                stdin=True,
                user=self._account or self._user,
                workdir=self.root,
                environment=self._shell_environment(),
            )
            attached = self._client.api.exec_start(made["Id"], socket=True)
            return ExecStream(attached, lambda: self._exit_code(made["Id"]))
        except _SDK_ERRORS as error:
            raise SandboxGone(f"no shell in the container: {engine_trouble(error)}") from error

    def _ids_of(self, account: str) -> tuple[int, int]:
        """Return the numbers of an account of the image. Raises ``SandboxUnavailable``."""
        try:
            made = self._client.api.exec_create(
                self._container, ["sh", "-c", "id -u; id -g"], user=account
            )
            said = self._client.api.exec_start(made["Id"]).split()
            return int(said[0]), int(said[1])
        except (*_SDK_ERRORS, ValueError, IndexError) as error:
            self._end()
            told = f"the image {self.image} has no account {account!r}"
            raise SandboxUnavailable(told) from error

    def _shell_environment(self) -> dict[str, str]:
        """Return what the shells have beside the container's own variables.

        Where the whole container is the agent's, the programs of its image and the tests of a task
        see the variables of the image alone.
        """
        if not self._limits.writable:
            return {}
        found = sandbox_environment("")
        return {name: value for name, value in found.items() if name not in _OF_THE_ACCOUNT}

    def _exit_code(self, exec_id: str) -> int | None:
        """Ask the engine for the exit code of a shell, which it knows soon after its end."""
        deadline = time.monotonic() + EXIT_CODE_WITHIN_S
        with suppress(*_SDK_ERRORS):
            while time.monotonic() < deadline:
                found = self._client.api.exec_inspect(exec_id)
                if not found["Running"]:
                    return int(found["ExitCode"])
                time.sleep(0.01)
        return None

    def shell_lives(self, pid: int) -> bool:
        return self._guard().lives(pid)

    def kill_shell(self, pid: int) -> None:
        self._guard().kill(pid)

    def _stop_command(self, pid: int, since_s: float, spared: list[int]) -> None:
        self._guard().stop_command(pid, since_s, spared)

    def _interrupt_command(self, pid: int, since_s: float, spared: list[int]) -> None:
        self._guard().interrupt_command(pid, since_s, spared)

    def _kill_all(self) -> None:
        self._guard().kill_all()

    def _stop_all(self) -> None:
        self._guard().lives(1)
        self._remove()

    def _begin(self) -> None:
        try:
            self._start(self._name)
        except _SDK_ERRORS as error:
            self._end()
            raise self._start_trouble(error) from error
        except BaseException:
            self._end()
            raise

    def _guard(self) -> Keeper:
        if self._keeper is None:
            raise SandboxGone("the container is closed")
        return self._keeper

    def _settle_user(self) -> tuple[int, int]:
        """Return the ids commands run as: the workspace's owner, and never root on the host."""
        info = self._client.info()
        self._cpus = int(info.get("NCPU", 1))
        if self._limits.writable:
            return (0, 0)
        if any("name=rootless" in option for option in info.get("SecurityOptions") or ()):
            return (0, 0)  # there, root inside is this user outside
        if os.geteuid() != 0:
            return (os.getuid(), os.getgid())
        self.workspace.give_to(*PLAIN_USER)
        return PLAIN_USER

    def _start(self, name: str) -> None:
        if not has_image(self._client, self.image):
            raise ImageMissing(_missing_image(self.image))
        api = self._client.api
        made = api.create_container(
            self.image,
            entrypoint=["bash", "--noprofile", "--norc", "-c", KEEPER],
            command=[],
            user=self._user,
            working_dir=self.root,
            stdin_open=True,
            environment=self._usual() | self._path() | self._environment,
            # The proxies in the user's Docker configuration may have a password in them.
            use_config_proxy=self._limits.network,
            labels={SESSION_LABEL: name, OWNER_LABEL: str(Owner.of_this_process())},
            healthcheck={"test": ["NONE"]},
            host_config=self._host_config(),
        )
        self._container = made["Id"]
        attached = api.attach_socket(
            self._container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        )
        stream = ExecStream(attached)
        api.start(self._container)
        self._keeper = Keeper(stream)
        self._keeper.lives(1)

    def _usual(self) -> dict[str, str]:
        return {} if self._limits.writable else sandbox_environment(HOME)

    def _volumes(self) -> list[str]:
        """Return the places the image wants volumes at, but for those that are mounted anyway."""
        settings = self._client.api.inspect_image(self.image)["Config"] or {}
        taken = {self.root, OUTPUTS, HOME, "/tmp", *(mount.target for mount in self._mounts)}
        return [place for place in settings.get("Volumes") or () if place not in taken]

    def _path(self) -> dict[str, str]:
        """Return ``PATH``, if it is to be another one than the image's."""
        if self._search_path is None:
            return {}
        settings = self._client.api.inspect_image(self.image)["Config"] or {}
        pairs = (line.partition("=") for line in settings.get("Env") or ())
        own = next((value for name, _, value in pairs if name == "PATH"), DEFAULT_PATH)
        return {"PATH": f"{self._search_path}:{own}"}

    def _host_config(self) -> Any:
        limits = self._limits
        memory = f"{limits.memory_mb}m"
        return self._client.api.create_host_config(
            auto_remove=True,
            network_mode="bridge" if limits.network else "none",
            mounts=[
                docker.types.Mount(self.root, str(self.workspace.path), type="bind"),
                docker.types.Mount(
                    OUTPUTS, str(self.workspace.outputs), type="bind", read_only=True
                ),
                *(
                    docker.types.Mount(
                        mount.target, str(mount.source), type="bind", read_only=not mount.writable
                    )
                    for mount in self._mounts
                ),
            ],
            **({} if limits.writable else self._hardening()),
            security_opt=["no-new-privileges"],
            mem_limit=memory,
            memswap_limit=memory,
            pids_limit=limits.pids,
            nano_cpus=int(min(limits.cpus, self._cpus) * 1e9),
            ulimits=[
                docker.types.Ulimit(name="core", soft=0, hard=0),
                _fsize_limit(limits),
            ],
            shm_size=f"{max(16, min(256, limits.memory_mb // 4))}m",
            log_config=docker.types.LogConfig(type="none"),
        )

    def _hardening(self) -> dict[str, Any]:
        """Ask for a read-only root, no capabilities, and memory for what is temporary."""
        uid, gid = self._user.split(":")
        tmpfs = f"rw,exec,nosuid,nodev,size={max(64, self._limits.memory_mb // 2)}m"
        return {
            "read_only": True,
            "tmpfs": {
                # What the image declares as volumes would else be on the disk, without a limit.
                **dict.fromkeys(self._volumes(), f"{tmpfs},mode=1777"),
                "/tmp": f"{tmpfs},mode=1777",
                HOME: f"{tmpfs},mode=0700,uid={uid},gid={gid}",
            },
            "cap_drop": ["ALL"],
        }

    def _start_trouble(self, error: BaseException) -> Exception:
        text = str(getattr(error, "explanation", None) or error)
        if '"bash"' in text and "not found" in text:
            return ImageMissing(f"the image {self.image} has no bash; use one that has")
        if "bind source path does not exist" in text or "bind mount" in text:
            return SandboxUnavailable(
                f"the Docker engine cannot see {self.workspace.path}; set XDG_STATE_HOME to a "
                "folder that it shares with this machine"
            )
        return engine_trouble(error)

    def _give_back(self) -> None:
        """Make what root in the container left in the workspace ours, so that it can be removed."""
        command = ["chown", "-R", f"{os.getuid()}:{os.getgid()}", self.root]
        with suppress(*_SDK_ERRORS):
            made = self._client.api.exec_create(self._container, command, user="0:0")
            self._client.api.exec_start(made["Id"])

    def _remove(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.close()
        container, self._container = self._container, ""
        if container:
            with suppress(*_SDK_ERRORS):
                self._client.api.remove_container(container, force=True, v=True)

    def _end(self) -> None:
        if self._limits.writable and self._container and os.geteuid() != 0:
            self._give_back()
        self._remove()
        with suppress(*_SDK_ERRORS):
            self._client.close()


class ExecStream:
    """A ``shell.Stream`` over a hijacked connection, whose output comes in frames."""

    def __init__(self, attached: Any, exit_code: Callable[[], int | None] | None = None) -> None:
        self._ask_exit_code = exit_code
        # The SDK wraps the socket; timeouts are ours to keep.
        self._wrapper = attached
        self._socket: socket.socket = getattr(attached, "_sock", attached)
        self._socket.settimeout(None)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._header = b""
        self._left = 0

    def read(self, timeout_s: float) -> bytes | None:
        deadline = time.monotonic() + timeout_s
        while self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            try:
                if self._left == 0:
                    part = self._socket.recv(8 - len(self._header))
                    self._header += part
                    if len(self._header) == 8:
                        (self._left,) = struct.unpack(">4xI", self._header)
                        self._header = b""
                    elif not part:
                        return b""
                    continue
                data = self._socket.recv(min(self._left, 1 << 16))
            except OSError:
                return b""
            self._left -= len(data)
            return data
        return None

    def write(self, data: bytes) -> None:
        self._socket.settimeout(WRITE_TIMEOUT_S)
        try:
            self._socket.sendall(data)
        finally:
            self._socket.settimeout(None)

    def exit_code(self, pid: int) -> int | None:
        return self._ask_exit_code() if self._ask_exit_code is not None else None

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for item in (self._wrapper, self._socket):
            with suppress(OSError):
                item.close()


def _fsize_limit(limits: Limits) -> Any:
    size = limits.disk_mb * 1024**2
    return docker.types.Ulimit(name="fsize", soft=size, hard=size)


def _missing_image(image: str) -> str:
    how = build_command(image) or f"docker pull {image}"
    return f"the image {image} is not on this machine; run: {how}"
