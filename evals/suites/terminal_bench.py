"""Terminal-Bench: tasks in Harbor's format, one folder each, graded by their own tests.

A task folder holds ``task.toml``, ``instruction.md``, ``environment/`` with a Dockerfile (or
``task.toml`` names an image) and ``tests/test.sh``. The agent works in a container of that image,
as root, in the image's working folder, which becomes a git repository. When it is done, and while
that container still runs, the tests are copied to ``/tests`` and ``test.sh`` says in
``/logs/verifier/reward.txt`` (or ``reward.json``) what the work is worth. So the verdict is made
with the run, and ``grade`` reads it.

Not supported, and said when a task is loaded: several containers (``docker-compose.yaml``), tasks
of several steps, and Windows.
"""

from __future__ import annotations

import io
import json
import math
import tarfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker.errors
import requests.exceptions

from evals.errors import DatasetError
from evals.instance import Instance, TaskPlace, Verdict
from evals.suites.dataset import unique
from evals.suites.images import build, repository_in, working_folder
from evals.suites.suite import OUTPUT_KEPT, Machine
from sandboxes.errors import SandboxGone, SandboxUnavailable
from sandboxes.images.engine import SESSION_LABEL, connect

VERDICT_FILE = "verifier.json"
_LOGS = "/logs/verifier"
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
        return unique([_instance(folder) for folder in folders])

    @contextmanager
    def place(self, instance: Instance, machine: Machine) -> Iterator[TaskPlace]:
        if machine.settings.sandbox != "docker":
            raise SandboxUnavailable("the suite terminal-bench runs in images; use docker")
        row = instance.row
        if instance.image is not None:
            image = machine.images.ensure(instance.id, instance.image)
        else:
            image = build(Path(row["folder"]) / "environment", instance.id, machine.tell)
        config = row["config"]
        environment = config.get("environment", {})
        workdir = environment.get("workdir") or working_folder(image)
        settings: dict[str, Any] = {
            "image": image,
            "workdir": workdir,
            "ignored_files": True,
            "writable": True,
            "network": _has_network(environment),
        }
        if environment.get("memory_mb"):
            settings["memory_mb"] = int(environment["memory_mb"])
        if environment.get("cpus"):
            settings["cpus"] = float(environment["cpus"])
        timeout = config.get("agent", {}).get("timeout_sec")
        if timeout and machine.settings.max_wall_time is None:
            settings["max_wall_time"] = float(timeout)
        tests = Path(row["folder"]) / "tests"
        limit = float(config.get("verifier", {}).get("timeout_sec", 600.0))
        variables = config.get("verifier", {}).get("env", {})
        with repository_in(image, workdir) as (repo, _):

            def verify(session: str) -> Mapping[str, bytes]:
                found = _verify(session, tests, workdir, limit, variables)
                return {VERDICT_FILE: json.dumps(found).encode()}

            yield TaskPlace(repo, settings, verify)

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
        config = tomllib.loads((folder / "task.toml").read_text("utf-8"))
        text = (folder / "instruction.md").read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise DatasetError(f"the task {folder} cannot be read: {error}") from error
    environment = config.get("environment", {})
    missing = []
    if config.get("steps"):
        missing.append("several steps")
    if list((folder / "environment").glob("docker-compose.y*ml")):
        missing.append("several containers")
    if environment.get("os", "linux") != "linux":
        missing.append(f"the system {environment['os']!r}")
    if missing:
        raise DatasetError(f"the task {folder.name} needs {missing[0]}, which is not supported")
    image = environment.get("docker_image")
    if not image and not (folder / "environment" / "Dockerfile").is_file():
        raise DatasetError(f"the task {folder.name} has neither an image nor a Dockerfile")
    if not (folder / "tests" / "test.sh").is_file():
        raise DatasetError(f"the task {folder.name} has no tests/test.sh, which grading needs")
    row = {"folder": str(folder), "config": config}
    return Instance(folder.name, text, image=image or None, row=row)


def _has_network(environment: Mapping[str, Any]) -> bool:
    if environment.get("allow_internet") is not None:
        return bool(environment["allow_internet"])
    return str(environment.get("network_mode", "public")) == "public"


def _verify(
    session: str, tests: Path, workdir: str, timeout_s: float, variables: Mapping[str, Any]
) -> dict[str, Any]:
    """Run the tests in the session's container; returns the reward and what they printed."""
    client = connect(timeout=int(timeout_s) + 120)
    try:
        label = f"{SESSION_LABEL}={session}"
        found = client.containers.list(filters={"label": label})
        if not found:
            raise SandboxGone("the container was gone before its tests could run")
        container = found[0]
        container.exec_run(["sh", "-c", f"rm -rf /tests {_LOGS}; mkdir -p /tests {_LOGS}"])
        container.put_archive("/tests", _packed(tests))
        # The limit holds inside, where the tests' own processes are.
        command = ["timeout", "-k", "10", f"{timeout_s:g}", "bash", "/tests/test.sh"]
        environment = {name: str(value) for name, value in variables.items()}
        done = container.exec_run(command, workdir=workdir, environment=environment)
        output = done.output.decode("utf-8", "replace")[-OUTPUT_KEPT:]
        reward, reason = _reward(container)
        if reward is None and done.exit_code == 124:
            reason = f"the tests ran over {timeout_s:g} s"
        return {"reward": reward, "reason": reason, "output": output, "exit_code": done.exit_code}
    except _DOCKER_ERRORS as error:
        raise SandboxGone(f"the tests could not run: {' '.join(str(error).split())}") from error
    finally:
        client.close()


def _packed(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, arcname=".")
    return buffer.getvalue()


def _reward(container: Any) -> tuple[float | None, str]:
    """Read the reward; None and the reason if there is none. JSON comes first."""
    for name in ("reward.json", "reward.txt"):
        done = container.exec_run(["cat", f"{_LOGS}/{name}"])
        if done.exit_code != 0:
            continue
        try:
            data = json.loads(done.output)
            value = float(data.get("reward", math.nan) if isinstance(data, dict) else data)
        except (TypeError, ValueError):
            value = math.nan
        if math.isfinite(value):
            return value, ""
        return None, f"the tests left no number in {name}"
    return None, "the tests left no reward.txt and no reward.json"


def _recorded(name: str, folder: Path) -> Verdict:
    try:
        data = json.loads((folder / name / VERDICT_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return Verdict(name, None, reason="the run left no verdict; run the instance again")
    reward = data.get("reward")
    if reward is None:
        return Verdict(name, False, 0.0, str(data.get("reason", "")), str(data.get("output", "")))
    solved = reward >= 1.0
    reason = "" if solved else f"the tests gave {reward:g}"
    return Verdict(name, solved, float(reward), reason, str(data.get("output", "")))
