"""Terminal-Bench: tasks in Harbor's format, one folder each, graded by their own tests.

A task folder holds ``task.toml``, ``instruction.md``, ``environment/`` with a Dockerfile (or
``task.toml`` names an image) and ``tests/test.sh``. The agent works in a container of that image,
as the image's own account, in the image's working folder as it is. When it is done, and while
that container still runs, the tests are copied to ``/tests`` and ``test.sh`` writes the reward to
``/logs/verifier/reward.json`` or ``reward.txt``. So the verdict is made with the run, and ``grade``
reads it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from evals.errors import DatasetError
from evals.instance import Instance, TaskPlace, Verdict
from evals.suites.compose import Compose, read_compose, services_of
from evals.suites.dataset import unique
from evals.suites.harbor import (
    HarborTask,
    RefusedTask,
    check_files,
    read_config,
    read_task,
    with_longer_limits,
)
from evals.suites.images import (
    PULL_TIMEOUT_S,
    account_of,
    build,
    digest_of,
    empty_repository,
    repository_in,
    working_folder,
)
from evals.suites.skills import skills_told
from evals.suites.suite import Machine
from evals.suites.task_container import VERDICT_FILE, TaskContainer
from sandboxes.errors import SandboxUnavailable
from sandboxes.images.image_tree import keeps_owners

_NOT_ROOT = (
    "the agent works on a copy without owners, special links and nested repositories, since this "
    "user is not root"
)


class TerminalBench:
    """The suite of tasks in Harbor's format."""

    name = "terminal-bench"
    brings_images = True

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
        folder = instance.folder
        task, services = _whole_task(folder, instance.row["config"])
        task = with_longer_limits(task, machine.time_factor)
        image = self.image_of(instance, task, machine)
        workdir = task.workdir or working_folder(image)
        account = account_of(image)
        container = TaskContainer(folder, task, workdir, account)
        if task.verifier is not None:
            apart = partial(_verifier_image, folder, task.verifier, image, machine)
            container = replace(container, verifier_image=apart)
        own = keeps_owners()
        where = {"image": image, "workdir": workdir, "image_tree": own}
        who = {"account": task.user or account or None}
        settings = _settings(task, machine) | where | who
        with ExitStack() as stack:
            limit = task.build_timeout_s or PULL_TIMEOUT_S
            project = f"tenuto-{uuid.uuid4().hex[:12]}"
            network = stack.enter_context(services_of(folder, services, project, limit))
            container = replace(container, network=network)
            if own:
                repo = stack.enter_context(empty_repository())
            else:
                machine.tell(f"{instance.id}: {_NOT_ROOT}")
                repo, _ = stack.enter_context(repository_in(image, workdir))
            home = f"/home/{account}" if account else "/root"
            yield TaskPlace(
                repo,
                settings,
                container.verify,
                container.solve,
                at_start=container.begin,
                notes=self.notes_on(image, task, home, workdir),
            )

    def notes_on(self, image: str, task: HarborTask, home: str, workdir: str) -> str:
        """Return what the model is told beside the task: the skills that the task names."""
        return skills_told(image, [task.skills_dir]) if task.skills_dir else ""

    def image_of(self, instance: Instance, task: HarborTask, machine: Machine) -> str:
        """Find or build the image of the agent's container. Raises ``ImageMissing``."""
        if instance.image is not None:
            return machine.images.ensure(instance.id, instance.image)
        assert instance.folder is not None
        limit = task.build_timeout_s or PULL_TIMEOUT_S
        return build(instance.folder / "environment", instance.id, machine.tell, limit)

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


def _whole_task(folder: Path, config: Mapping[str, Any]) -> tuple[HarborTask, Compose]:
    """Return what ``task.toml`` and the compose file say. Raises ``RefusedTask``."""
    task, compose = read_task(folder.name, config), read_compose(folder)
    if compose.services and not task.online:
        raise RefusedTask(f"the task {folder.name} needs services without a network for the agent")
    return replace(task, environment={**task.environment, **compose.environment}), compose


def _verifier_image(folder: Path, task: HarborTask, agents: str, machine: Machine) -> str:
    """Find or build the image of a separate verifier; the agent's if it has none of its own."""
    if task.image is not None:
        return machine.images.ensure(folder.name, task.image)
    if (folder / "tests" / "Dockerfile").is_file():
        limit = task.build_timeout_s or PULL_TIMEOUT_S
        return build(folder / "tests", f"{folder.name}-tests", machine.tell, limit)
    return agents


def _instance(folder: Path) -> Instance:
    try:
        config = read_config(folder)
        task, _ = _whole_task(folder, config)
        check_files(folder, task)
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
