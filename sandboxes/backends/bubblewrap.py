"""Commands in a bubblewrap sandbox: the host's programs, nothing else of the host.

For machines without Docker. The programs are those in the host's /usr, read-only. There is no
network unless asked for, and a process table, a /tmp and a home of its own. As in a container
(see ``docker.py``) the keeper is process 1, and all ends when our end of its pipe closes.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from sandboxes.backends.cgroup import Cgroup
from sandboxes.backends.common import OUTPUTS, CommonSandbox
from sandboxes.backends.environment import sandbox_environment
from sandboxes.backends.keeper import KEEPER, Keeper
from sandboxes.backends.seccomp import build_filter, join_new_keyring
from sandboxes.base import Limits
from sandboxes.errors import SandboxGone, SandboxUnavailable
from sandboxes.mounts import Mount
from sandboxes.shell.bash import shell_command
from sandboxes.shell.process_table import WRITE_TIMEOUT_S, PipeStream
from sandboxes.shell.shell import Stream
from sandboxes.workspace.safe_tree import SafeTree
from sandboxes.workspace.workspace import Workspace

ROOT = "/workspace"
HOME = "/home/agent"
UID = GID = 1000
PATH = "/usr/local/bin:/usr/bin:/bin"
_PROGRAM_FOLDERS = ("/usr/", "/bin", "/sbin")

# What programs need of /etc; no accounts, keys or host names.
_ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types")
_ETC_BROWSER = ("chromium.d", "fonts")
_ETC_NETWORK = ("ca-certificates", "hosts", "nsswitch.conf", "pki", "resolv.conf", "ssl")
_PASSWD = f"root:x:0:0::/:/bin/false\nagent:x:{{user}}:{{user}}::{HOME}:/bin/bash\n"
_GROUP = "root:x:0:\nagent:x:{user}:\n"
# Ids that no account, container or service manager hands out.
_FIRST_ID, _IDS = 1_000_000_000, 600_000_000
_CAPABILITIES = (0, 6, 7, 21)  # CHOWN, SETGID, SETUID, SYS_ADMIN


class BubblewrapSandbox(CommonSandbox):
    """The ``Sandbox`` in a bubblewrap (see ``base.py``)."""

    kind = "bubblewrap"

    def __init__(
        self,
        workspace: Workspace,
        *,
        limits: Limits | None = None,
        mounts: Sequence[Mount] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Raises ``SandboxUnavailable`` if bwrap is not there or may not make namespaces."""
        if shutil.which("bwrap") is None:
            raise SandboxUnavailable(
                "bubblewrap is not installed; install it (Debian: apt-get install bubblewrap)"
            )
        super().__init__(workspace, limits, SafeTree(workspace.path, root=ROOT))
        self._filter = build_filter()
        self._user = self._settle_user()
        self._mounts = mounts
        self._environment = dict(environment or {})
        # The kernel kills the sandbox when the thread that started it ends, so that is one of ours.
        self._starter = ThreadPoolExecutor(max_workers=1)
        self._process: subprocess.Popen[bytes] | None = None
        self._begin()
        self._ready(OUTPUTS)

    def _settle_user(self) -> int | None:
        """Return an id that nobody on this machine has and give it the workspace; None if not root.

        So what runs inside owns nothing of the host's. Others than root have their own id there, in
        a user namespace.
        """
        if not _may_change_user() or self._filter is None:
            return None
        user = _FIRST_ID + secrets.randbelow(_IDS)
        self.workspace.give_to(user, user)
        self._files.owner = (user, user)
        return user

    def start_shell(self, command: list[str], slot: int) -> Stream:
        if self._closed:
            raise SandboxGone("the sandbox is closed")
        pipes = self._pipes[slot]
        pipes.clear()
        pipes.keeper = self._keeper
        self._keeper.start_shell(command[-1], slot)
        return pipes

    def shell_lives(self, pid: int) -> bool:
        return self._keeper.lives(pid)

    def kill_shell(self, pid: int) -> None:
        self._keeper.kill(pid)

    def _stop_command(self, pid: int, since_s: float, spared: list[int]) -> None:
        self._keeper.stop_command(pid, since_s, spared)

    def _interrupt_command(self, pid: int, since_s: float, spared: list[int]) -> None:
        self._keeper.interrupt_command(pid, since_s, spared)

    def _kill_all(self) -> None:
        self._keeper.kill_all()

    def _begin(self) -> None:
        self._cgroup = Cgroup.create(self._limits)
        self._pipes = (_SharedPipes(), _SharedPipes())
        try:
            self._process = self._starter.submit(self._launch).result()
            self._keeper = Keeper(PipeStream(self._process))
            self._check_start()
        except BaseException:
            self._end()
            raise

    def _stop_all(self) -> None:
        self._keeper.lives(1)
        self._stop()

    def _launch(self) -> subprocess.Popen[bytes]:
        inner_ends = [end for pipes in self._pipes for end in pipes.inner]
        keeper = ["bash", "--noprofile", "--norc", "-c", KEEPER, "bash", *shell_command("")[:-1]]
        # The limits are set inside: there the count of processes is that of the sandbox alone.
        limits = f"ulimit -c 0; ulimit -f {self._limits.disk_mb * 1024}; "
        limits += f"ulimit -d {self._limits.memory_mb * 1024}; ulimit -u {self._limits.pids}; "
        inner = ["bash", "-c", limits + f'exec "$@" {_inherited(inner_ends)}', "bash", *keeper]
        if self._user is not None:
            user = [f"--reuid={self._user}", f"--regid={self._user}", "--clear-groups"]
            user.append("--inh-caps=-all")
            # The change of user makes the kernel forget that we die with our parent.
            inner = ["setpriv", *user, "--pdeathsig=KILL", "--", *inner]
        join_new_keyring()  # of this thread, which starts nothing else
        with _readable(self._filter) as filter_fd, _readable(self._variables()) as own_fd:
            return subprocess.Popen(
                self._cgroup.entering([*self._bwrap(filter_fd, own_fd), "--", *inner]),
                env={"PATH": os.environ.get("PATH", PATH)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                pass_fds=[*inner_ends, *filter_fd, *own_fd],
                start_new_session=True,
            )

    def _namespaces(self, filter_fd: list[int]) -> list[str]:
        """Return how the sandbox is set apart, and as whom."""
        command = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-uts"]
        command += ["--unshare-cgroup-try", "--die-with-parent", "--as-pid-1", "--new-session"]
        command += ["--hostname", "sandbox", "--clearenv", "--cap-drop", "ALL"]
        if not self._limits.network:
            command.append("--unshare-net")
        if self._user is not None:
            command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        else:
            command += ["--unshare-user", "--uid", str(UID), "--gid", str(GID)]
            if _can_forbid_namespaces():
                command.append("--disable-userns")
        for fd in filter_fd:
            command += ["--seccomp", str(fd)]
        return command

    def _variables(self) -> bytes:
        """Return the arguments that set variables: ``ps`` shows a command's own to everybody."""
        variables = {"PATH": _inner_path(), **sandbox_environment(HOME), **self._environment}
        words = [word for key, value in variables.items() for word in ("--setenv", key, value)]
        return b"".join(os.fsencode(word) + b"\0" for word in words)

    def _bwrap(self, filter_fd: list[int], own_fd: list[int]) -> list[str]:
        etc = self.workspace.path.with_name("etc")
        etc.mkdir(exist_ok=True)
        etc.chmod(0o755)
        user = self._user or UID
        for name, text in (("passwd", _PASSWD), ("group", _GROUP)):
            (etc / name).write_text(text.format(user=user))
            (etc / name).chmod(0o644)
        size = str(max(64, self._limits.memory_mb // 2) << 20)
        tmpfs = ["--perms", "1777", "--size", size, "--tmpfs"]
        command = self._namespaces(filter_fd)
        for name in ("/etc", "/home"):  # bubblewrap makes them for their owner alone
            command += ["--perms", "0755", "--dir", name]
        command += ["--ro-bind", "/usr", "/usr"]
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
            place = Path("/", name)
            if place.is_symlink():
                command += ["--symlink", str(place.readlink()), str(place)]
            elif place.is_dir():
                command += ["--ro-bind", str(place), str(place)]
        for name in (*_ETC, *_ETC_BROWSER, *(_ETC_NETWORK if self._limits.network else ())):
            command += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
        for name in ("passwd", "group"):
            command += ["--ro-bind", str(etc / name), f"/etc/{name}"]
        command += ["--proc", "/proc"]
        for name in _kernel_files():
            command += ["--ro-bind-try", name, name]
        command += ["--dev", "/dev", *tmpfs, "/dev/shm"]
        command += ["--remount-ro", "/dev", *tmpfs, "/tmp", *tmpfs, HOME]
        command += ["--ro-bind", str(self.workspace.outputs), OUTPUTS]
        command += ["--bind", str(self.workspace.path), ROOT, "--chdir", ROOT]
        for mount in self._mounts:
            how = "--bind" if mount.writable else "--ro-bind"
            command += [how, str(mount.source), mount.target]
        command += ["--remount-ro", "/"]
        for fd in own_fd:
            command += ["--args", str(fd)]
        return command

    def _check_start(self) -> None:
        try:
            self._keeper.lives(1)
        except SandboxGone as error:
            text = str(error)
            if "bwrap:" in text:
                reason = text.partition("bwrap:")[2].strip()
                raise SandboxUnavailable(
                    f"bubblewrap may not make a sandbox here ({reason}); allow unprivileged user "
                    "namespaces or use --sandbox docker"
                ) from error
            raise

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            # Its death is that of process 1 inside, and the kernel ends all the others with that.
            with suppress(OSError):
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        for pipes in self._pipes:
            pipes.end()
        self._cgroup.remove()

    def _end(self) -> None:
        self._stop()
        self._starter.shutdown(wait=False)


@contextmanager
def _readable(content: bytes | None) -> Iterator[list[int]]:
    """Yield a descriptor that gives ``content``, or none if there is none."""
    if content is None:
        yield []
        return
    fd = os.memfd_create("given")
    try:
        os.write(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
        yield [fd]
    finally:
        os.close(fd)


def _may_change_user() -> bool:
    """Tell whether we are root with the rights to set up a sandbox for somebody else."""
    if os.geteuid() != 0 or shutil.which("setpriv", path=PATH) is None:
        return False
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.M)
    held = int(found[1], 16) if found else 0
    return all(held >> capability & 1 for capability in _CAPABILITIES)


@functools.cache
def _can_forbid_namespaces() -> bool:
    """Tell whether this bubblewrap knows ``--disable-userns`` and may use it."""
    found = subprocess.run(["bwrap", "--help"], capture_output=True, text=True, check=False)
    return "--disable-userns" in found.stdout and os.access("/proc/sys/user", os.R_OK)


class _SharedPipes:
    """A ``shell.Stream`` over one pair of pipes that all shells of the sandbox use in turn.

    We keep both ends of each open, so a shell's end is not seen here but asked of the keeper.
    """

    def __init__(self) -> None:
        self.keeper: Keeper | None = None
        self._take, self._commands = os.pipe()
        self._output, self._put = os.pipe()
        for fd in (self._take, self._commands):
            os.set_blocking(fd, False)
        # Bash reads from a blocking end of its own: the flag belongs to the open pipe end.
        self.inner = (os.open(f"/proc/self/fd/{self._take}", os.O_RDONLY), self._put)
        self._poll = select.poll()
        self._poll.register(self._output, select.POLLIN)

    def read(self, timeout_s: float) -> bytes | None:
        if not self._poll.poll(timeout_s * 1000):
            return None
        return os.read(self._output, 1 << 16)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        deadline = time.monotonic() + WRITE_TIMEOUT_S
        while view:
            try:
                view = view[os.write(self._commands, view) :]
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError("the shell does not read its commands") from None
                select.select([], [self._commands], [], 0.1)

    def clear(self) -> None:
        """Take out the commands that an ended shell has not read."""
        _drain(lambda: os.read(self._take, 1 << 16))

    def exit_code(self, pid: int) -> int | None:
        return self.keeper.exit_code(pid) if self.keeper is not None else None

    def close(self) -> None:
        """Do nothing, as the next shell uses the same pipes."""

    def end(self) -> None:
        """Close all."""
        for fd in {self._take, self._commands, self._output, self._put, self.inner[0]}:
            with suppress(OSError):
                os.close(fd)


def _kernel_files() -> list[str]:
    """Return what is in /proc beside processes and can be written by somebody.

    Where root cannot take another id inside, the owner of these is allowed in by id alone: the one
    for core dumps names a program that the kernel runs.
    """
    found = []
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdecimal() or entry.is_symlink():
                continue
            with suppress(OSError):
                if entry.is_dir() or entry.stat().st_mode & 0o222:
                    found.append(entry.path)
    return sorted(found)


def _inherited(ends: list[int]) -> str:
    """Return the redirections that give the keeper both shells' pipes (see ``keeper.py``)."""
    commands, output, second_commands, second_output = ends
    return f"5<&{commands} 6>&{output} 7<&{second_commands} 8>&{second_output}"


def _inner_path() -> str:
    """Return the folders of our own PATH that are there inside, or the usual ones."""
    own = os.environ.get("PATH", "").split(":")
    return ":".join(folder for folder in own if folder.startswith(_PROGRAM_FOLDERS)) or PATH


def _drain(read: Callable[[], bytes]) -> None:
    with suppress(BlockingIOError):
        while read():
            pass
