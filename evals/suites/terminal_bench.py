"""Terminal-Bench: tasks in Harbor's format, one folder each, graded by their own tests.

A task folder holds ``task.toml``, ``instruction.md``, ``environment/`` with a Dockerfile (or
``task.toml`` names an image) and ``tests/test.sh``. The agent works in a container of that image,
as root, in the image's working folder, which becomes a git repository. When it is done, and while
that container still runs, the tests are copied to ``/tests`` and ``test.sh`` writes the reward to
``/logs/verifier/reward.json`` or ``reward.txt``. So the verdict is made with the run, and ``grade``
reads it.
"""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker.errors
import requests.exceptions

from evals.errors import DatasetError
from evals.instance import Instance, TaskPlace, Verdict
from evals.suites.dataset import unique
from evals.suites.harbor import HarborTask, RefusedTask, check_files, read_config, read_task
from evals.suites.images import PULL_TIMEOUT_S, build, digest_of, repository_in, working_folder
from evals.suites.suite import OUTPUT_KEPT, Machine
from sandboxes.errors import SandboxGone, SandboxUnavailable
from sandboxes.images.engine import SESSION_LABEL, connect

VERDICT_FILE, LOGS_FILE = "verifier.json", "verifier-logs.tar"
_LOGS = "/logs/verifier"
_OUTPUT = f"{_LOGS}/test-stdout.txt"
_READ = '[ -f "$1" ] && [ ! -L "$1" ] && head -c 65536 "$1"'
_MOST_LOGS = 16 << 20
_DOCKER_ERRORS = (docker.errors.DockerException, requests.exceptions.RequestException)


class TerminalBench:
    """The suite of tasks in Harbor's format."""

    name = "terminal-bench"

    def load(self, dataset: str | None) -> list[Instance]:
        """Read the tasks. ``dataset`` is a folder of task folders, or one task folder."""
        if dataset is None or not Path(dataset).is_dir():
            raise DatasetError("the suite terminal-bench needs --dataset FOLDER with task folders")
        root = Path(dataset).resolve()
        if (root / "task.toml").is_file():
            folders = [root]
        else:
            folders = sorted(path.parent for path in root.glob("*/task.toml"))
        if not folders:
            raise DatasetError(f"there is no */task.toml in {root}")
        instances = [_instance(folder) for folder in folders]
        if all(instance.refused for instance in instances):
            raise DatasetError(instances[0].refused)
        return unique(instances)

    @contextmanager
    def place(self, instance: Instance, machine: Machine) -> Iterator[TaskPlace]:
        if machine.settings.sandbox != "docker":
            raise SandboxUnavailable("the suite terminal-bench runs in images; use docker")
        assert instance.folder is not None
        task = read_task(instance.id, instance.row["config"])
        if instance.image is not None:
            image = machine.images.ensure(instance.id, instance.image)
        else:
            limit = task.build_timeout_s or PULL_TIMEOUT_S
            image = build(instance.folder / "environment", instance.id, machine.tell, limit)
        workdir = task.workdir or working_folder(image)
        container = _TaskContainer(instance.folder, task, workdir)
        with repository_in(image, workdir) as (repo, _):
            settings = _settings(task, machine) | {"image": image, "workdir": workdir}
            yield TaskPlace(repo, settings, container.verify, container.solve)

    def grade(
        self,
        instances: Sequence[Instance],
        patches: Mapping[str, str],
        machine: Machine,
        *,
        folder: Path,
        workers: int = 1,
    ) -> list[Verdict]:
        """Read the verdicts that were made with the run; ``folder`` is the run's attempts'."""
        return [_recorded(i.id, folder) for i in instances if i.id in patches]


def _instance(folder: Path) -> Instance:
    try:
        config = read_config(folder)
        task = read_task(folder.name, config)
        check_files(folder, task.image)
        text = (folder / "instruction.md").read_text("utf-8").strip()
    except RefusedTask as error:
        return Instance(folder.name, "", folder=folder, refused=str(error))
    except (OSError, ValueError) as error:
        told = f"the task {folder} cannot be read: {error}"
        return Instance(folder.name, "", folder=folder, refused=told)
    return Instance(
        folder.name,
        text,
        image=task.image,
        row={"config": config},
        folder=folder,
        files=digest_of(folder),
    )


def _settings(task: HarborTask, machine: Machine) -> dict[str, Any]:
    """Return what the task decides of the user's settings."""
    own = machine.settings
    settings: dict[str, Any] = {
        "ignored_files": True,
        "writable": True,
        "network": "bridge" if task.online else "none",
        "pass_env": (*own.pass_env, *(f"{k}={v}" for k, v in task.environment.items())),
        "disk_mb": max(own.disk_mb, task.storage_mb or 0),
    }
    if task.memory_mb is not None:
        settings["memory_mb"] = task.memory_mb
    if task.cpus is not None:
        settings["cpus"] = task.cpus
    if task.agent_timeout_s is not None and own.max_wall_time is None:
        settings["max_wall_time"] = task.agent_timeout_s
    return settings


class _TaskContainer:
    """The container of one attempt, found by its session: what the task itself runs there."""

    def __init__(self, folder: Path, task: HarborTask, workdir: str) -> None:
        self._folder, self._task, self._workdir = folder, task, workdir

    def solve(self, session: str) -> None:
        """Run the task's own solution. Raises ``SandboxGone``, ``DatasetError`` if it has none."""
        script = self._folder / "solution" / "solve.sh"
        if not script.is_file():
            raise DatasetError(f"the task {self._folder.name} has no solution/solve.sh")
        limit = self._task.agent_timeout_s or self._task.verifier_timeout_s
        with _container_of(session, limit) as container:
            container.exec_run(["mkdir", "-p", "/solution"])
            container.put_archive("/solution", _packed(script.parent))
            container.exec_run(
                ["timeout", "-k", "10", f"{limit:g}", "bash", "/solution/solve.sh"],
                workdir=self._workdir,
                environment={
                    "DEBIAN_FRONTEND": "noninteractive",
                    **self._task.solution_environment,
                },
            )

    def verify(self, session: str) -> Mapping[str, bytes]:
        """Run the tests; return the verdict and the verifier's files. Raises ``SandboxGone``."""
        limit = self._task.verifier_timeout_s
        with _container_of(session, limit) as container:
            container.exec_run(["sh", "-c", f"rm -rf {_LOGS}/reward.* ; mkdir -p /tests {_LOGS}"])
            container.put_archive("/tests", _packed(self._folder / "tests"))
            # The limit holds inside, where the tests' own processes are.
            command = f"timeout -k 10 {limit:g} bash /tests/test.sh >{_OUTPUT} 2>&1"
            done = container.exec_run(
                ["sh", "-c", command],
                workdir=self._workdir,
                environment=dict(self._task.verifier_environment),
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


def _packed(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, arcname=".")
    return buffer.getvalue()


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
        done = container.exec_run(["sh", "-c", _READ, "-", f"{_LOGS}/{name}"])
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


def _recorded(name: str, folder: Path) -> Verdict:
    try:
        data = json.loads((folder / name / VERDICT_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return Verdict(name, None, reason="the run left no verdict; run the instance again")
    output, reward = str(data.get("output", "")), data.get("reward")
    if reward is None:
        return Verdict(name, None, 0.0, f"not graded: {data.get('reason', '')}", output)
    solved = reward >= 1.0
    reason = "" if solved else f"the tests gave {reward:g}"
    return Verdict(name, solved, float(reward), reason, output)
