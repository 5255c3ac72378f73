"""Run health checks, the solution and the tests of a task in Harbor's format in containers.

The agent's container is found by its session. The tests run there, or, for a separate verifier, in
a container of their own that is given the task's artefacts at the same places.
"""

from __future__ import annotations

import fnmatch
import io
import json
import math
import posixpath
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker.errors
import requests.exceptions

from evals.errors import DatasetError
from evals.suites.harbor import Artifact, HarborTask, Readiness
from evals.suites.suite import OUTPUT_KEPT
from sandboxes.errors import SandboxGone, SandboxUnavailable
from sandboxes.images.engine import OWNER_LABEL, SESSION_LABEL, connect, engine_trouble
from sandboxes.paths import Owner

VERDICT_FILE, LOGS_FILE = "verifier.json", "verifier-logs.tar"
ROOT_USER = "0:0"
_LOGS, _PUBLISHED = "/logs/verifier", "/logs/artifacts"
_OUTPUT = f"{_LOGS}/test-stdout.txt"
_READ = '[ -f "$1" ] && [ ! -L "$1" ] && head -c 65536 "$1"'
_MOST_LOGS, _MOST_ARTIFACTS = 16 << 20, 4 << 30
_DOCKER_ERRORS = (docker.errors.DockerException, requests.exceptions.RequestException)


@dataclass(frozen=True)
class TaskContainer:
    """The containers of one attempt. ``account`` is the image's own user, "" for root.

    ``verifier_image`` makes the image of a separate verifier when it is needed; ``network`` is that
    of the services beside it, "" for none.
    """

    folder: Path
    task: HarborTask
    workdir: str
    account: str = ""
    verifier_image: Callable[[], str] | None = None
    network: str = ""

    def begin(self, session: str) -> None:
        """Make the usual folders and wait until the task's environment is healthy.

        Raises ``SandboxUnavailable`` if it never is.
        """
        limit = self.task.health.timeout_s if self.task.health is not None else 60
        with _container_of(session, limit) as container:
            if self.network:
                network = container.client.networks.get(self.network)
                network.connect(container, aliases=["main"])
            _make_folders(container)
            if self.task.health is not None:
                user = self.task.user or self.account
                _wait_until_healthy(container, self.task.health, user)

    def solve(self, session: str) -> None:
        """Run the task's own solution. Raises ``SandboxGone``, ``DatasetError`` if it has none."""
        script = self.folder / "solution" / "solve.sh"
        if not script.is_file():
            raise DatasetError(f"the task {self.folder.name} has no solution/solve.sh")
        limit = self.task.agent_timeout_s or self.task.verifier_timeout_s
        with _container_of(session, limit) as container:
            container.exec_run(["mkdir", "-p", "/solution"], user=ROOT_USER)
            container.put_archive("/solution", _packed(script.parent))
            container.exec_run(
                ["timeout", "-k", "10", f"{limit:g}", "bash", "/solution/solve.sh"],
                workdir=self.workdir,
                user=self.task.user or self.account or ROOT_USER,
                environment={
                    "DEBIAN_FRONTEND": "noninteractive",
                    **self.task.solution_environment,
                },
            )

    def verify(self, session: str) -> Mapping[str, bytes]:
        """Run the tests; return the verdict and the verifier's files. Raises ``SandboxGone``."""
        limit = self.task.verifier_timeout_s
        with _container_of(session, limit) as container:
            if self.verifier_image is None or self.task.verifier is None:
                _make_folders(container)
                self._give_tests(container)
                return self._run_tests(container, self.task.verifier_user or self.account)
            for hook in self.task.collect:
                container.exec_run(
                    ["timeout", "-k", "5", f"{hook.timeout_s:g}", "bash", "-c", hook.command],
                    workdir=self.workdir,
                    user=hook.user or self.account or ROOT_USER,
                )
            return self._verify_apart(container, self.task.verifier, self.verifier_image())

    def _verify_apart(self, agents: Any, task: HarborTask, image: str) -> Mapping[str, bytes]:
        """Run the tests in a container of their own over the artefacts."""
        with _fresh(image, task, self.task.verifier_timeout_s) as container:
            own = str(container.attrs["Config"].get("User") or "")
            _make_folders(container)
            for artifact in (Artifact(_PUBLISHED), *self.task.artifacts):
                self._carry(agents, container, artifact)
            if not (self.folder / "tests" / "Dockerfile").is_file():
                self._give_tests(container)
            return self._run_tests(container, self.task.verifier_user or own, task.workdir)

    def _carry(self, source: Any, target: Any, artifact: Artifact) -> None:
        """Copy one artefact to the same place. One that is not there is left out."""
        path = posixpath.normpath(posixpath.join(self.workdir, artifact.source))
        with tempfile.TemporaryFile() as got, tempfile.TemporaryFile() as made:
            try:
                size = 0
                for chunk in source.get_archive(path)[0]:
                    size += len(chunk)
                    if size > _MOST_ARTIFACTS:
                        raise SandboxUnavailable(f"the artefact {path} is larger than 4 GiB")
                    got.write(chunk)
            except docker.errors.NotFound:
                return
            got.seek(0)
            with tarfile.open(fileobj=got) as old, tarfile.open(fileobj=made, mode="w") as new:
                for member in old:
                    # Devices and what leads out of the artefact are not carried.
                    with suppress(tarfile.FilterError):
                        _add(new, old, member, artifact.exclude)
            made.seek(0)
            parent = posixpath.dirname(path)
            target.exec_run(["mkdir", "-p", parent], user=ROOT_USER)
            target.exec_run(["rm", "-rf", path], user=ROOT_USER)
            target.put_archive(parent, made)

    def _give_tests(self, container: Any) -> None:
        container.exec_run(["mkdir", "-p", "/tests"], user=ROOT_USER)
        container.put_archive("/tests", _packed(self.folder / "tests"))

    def _run_tests(self, container: Any, user: str, workdir: str | None = None) -> dict[str, bytes]:
        limit = self.task.verifier_timeout_s
        container.exec_run(["sh", "-c", f"rm -rf {_LOGS}/reward.*"], user=ROOT_USER)
        # The limit holds inside, where the tests' own processes are.
        command = f"timeout -k 10 {limit:g} bash /tests/test.sh >{_OUTPUT} 2>&1"
        own = str(container.attrs["Config"].get("WorkingDir") or "/")
        where = workdir or (self.workdir if self.task.verifier is None else own)
        done = container.exec_run(
            ["sh", "-c", command],
            workdir=where,
            user=user or ROOT_USER,
            environment=dict(self.task.verifier_environment),
        )
        reward, reason = _reward(container)
        if reward is None and done.exit_code == 124:
            reason = f"the tests ran over {limit:g} s"
        elif reward is None and done.exit_code == 127:
            reason += " (exit code 127: is bash in the image?)"
        output = container.exec_run(["tail", "-c", str(OUTPUT_KEPT), _OUTPUT]).output
        found = {
            "reward": reward,
            "reason": reason,
            "output": output.decode("utf-8", "replace"),
            "exit_code": done.exit_code,
        }
        return {VERDICT_FILE: json.dumps(found).encode(), LOGS_FILE: _logs(container)}


@contextmanager
def _container_of(session: str, timeout_s: float) -> Iterator[Any]:
    """Yield the session's container; nothing waits on it for much longer than ``timeout_s``."""
    client = connect(timeout=int(timeout_s) + 120)
    try:
        found = client.containers.list(filters={"label": f"{SESSION_LABEL}={session}"})
        if not found:
            raise SandboxGone("the container was gone before its tests could run")
        yield found[0]
    except _DOCKER_ERRORS as error:
        raise SandboxGone(f"the tests could not run: {' '.join(str(error).split())}") from error
    finally:
        client.close()


@contextmanager
def _fresh(image: str, task: HarborTask, timeout_s: float) -> Iterator[Any]:
    """Yield a new container for a separate verifier. Raises ``SandboxUnavailable``."""
    client = connect(timeout=int(timeout_s) + 120)
    container: Any = None
    try:
        container = client.containers.create(
            image,
            ["-c", "sleep infinity"],
            entrypoint="sh",
            labels={OWNER_LABEL: str(Owner.of_this_process())},
            network_mode="bridge" if task.online else "none",
            mem_limit=f"{task.memory_mb or 4096}m",
            nano_cpus=int((task.cpus or 2) * 1e9),
            environment=dict(task.environment),
            pids_limit=2048,
            init=True,
        )
        container.start()
        yield container
    except _DOCKER_ERRORS as error:
        raise engine_trouble(error) from error
    finally:
        if container is not None:
            with suppress(*_DOCKER_ERRORS):
                container.remove(force=True, v=True)
        client.close()


def _make_folders(container: Any) -> None:
    """Make the folders that the format promises; whoever the tests run as may write there."""
    places = f"{_LOGS} {_PUBLISHED} /logs/agent"
    script = f"mkdir -p {places} && chmod 777 {places}"
    container.exec_run(["sh", "-c", script], user=ROOT_USER)


def _wait_until_healthy(container: Any, health: Readiness, user: str) -> None:
    """Ask as Docker does: failures in the start period do not count."""
    began, failures = time.monotonic(), 0
    limit = ["timeout", "-k", "1", f"{health.timeout_s:g}"]
    while True:
        starting = time.monotonic() - began < health.start_period_s
        asked = [*limit, "bash", "-c", health.command]
        if container.exec_run(asked, user=user or ROOT_USER).exit_code == 0:
            return
        failures += not starting
        if failures >= health.retries:
            raise SandboxUnavailable(
                f"the task's environment never became healthy: {health.command[:120]!r} failed "
                f"{failures} times"
            )
        time.sleep(health.start_interval_s if starting else health.interval_s)


def _packed(folder: Path) -> bytes:
    """Return a folder as a tar whose files are root's and may be read by any account."""

    def readable(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mode |= 0o555 if member.isdir() else 0o444
        return member

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, arcname=".", filter=readable)
    return buffer.getvalue()


def _add(
    new: tarfile.TarFile, old: tarfile.TarFile, member: tarfile.TarInfo, exclude: Sequence[str]
) -> None:
    """Copy one member, unless a pattern leaves it out. Raises ``tarfile.FilterError``."""
    name = member.name.rstrip("/")
    if any(fnmatch.fnmatch(part, x) for x in exclude for part in (name, posixpath.basename(name))):
        return
    safe = tarfile.data_filter(member, "/nowhere")
    bits = 0o755 if safe.isdir() else (safe.mode or 0o644) | 0o444
    safe = safe.replace(mode=bits, uid=0, gid=0, uname="root", gname="root", deep=False)
    if safe.isfile():
        new.addfile(safe, old.extractfile(member))
    elif safe.isdir() or safe.issym() or safe.islnk():
        new.addfile(safe)


def _logs(container: Any) -> bytes:
    """Return the verifier's files as a tar; empty if they are too large or not there."""
    data = bytearray()
    with suppress(*_DOCKER_ERRORS):
        for chunk in container.get_archive(_LOGS)[0]:
            data += chunk
            if len(data) > _MOST_LOGS:
                return b""
    return bytes(data)


def _reward(container: Any) -> tuple[float | None, str]:
    """Read the reward; None and the reason if there is none in [0, 1]. JSON comes first."""
    for name in ("reward.json", "reward.txt"):
        asked = ["sh", "-c", _READ, "-", f"{_LOGS}/{name}"]
        done = container.exec_run(asked, user=ROOT_USER)
        if done.exit_code != 0:
            continue
        try:
            data = json.loads(done.output)
            value = float(data.get("reward", math.nan) if isinstance(data, dict) else data)
        except (TypeError, ValueError, RecursionError):
            value = math.nan
        if math.isnan(value):
            return None, f"the tests left no number in {name}"
        if not 0 <= value <= 1:
            return None, f"the tests left the reward {value:g} in {name}, which is not in [0, 1]"
        return value, ""
    return None, "the tests left no reward.txt and no reward.json"
