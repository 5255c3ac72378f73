"""NL2Repo: write a whole Python project from its specification, graded by the original's tests.

A task is a folder with ``start.md`` (the specification), ``test_case_count.txt`` (the number of
tests), ``test_commands.json`` (the commands that run them) and ``test_files.json`` (their paths).
The agent works in a repository that holds ``start.md`` alone. The task's image has the original
project's tests, packaging files and dependencies in ``/workspace`` and is for grading only: the
agent's files are laid over it, without packaging files and tests of the agent's own, and the reward
is the share of the tests that pass.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import docker.errors
import requests.exceptions

from evals.errors import DatasetError
from evals.instance import Instance, TaskPlace, Verdict
from evals.scratch import scratch_folder
from evals.suites.dataset import unique
from evals.suites.images import begin_repository
from evals.suites.suite import OUTPUT_KEPT, Machine, grade_each
from sandboxes.errors import SandboxUnavailable, WorkspaceError
from sandboxes.images.engine import OWNER_LABEL, connect, engine_trouble
from sandboxes.paths import Owner
from sandboxes.workspace.workspace import Workspace

IMAGE = "ghcr.io/multimodal-art-projection/nl2repobench/{name}:1.0"
HOME = "/workspace"
TEXT = (
    "Implement the whole project that start.md describes, in the current folder, so that it can be "
    "used directly from there as its section on the API says. Work step by step until all of it "
    "is there."
)
PACKAGING = frozenset(
    (
        *("setup.py", "pyproject.toml", "setup.cfg", "tox.ini", "pytest.ini", "poetry.lock"),
        *("requirements.txt", "requirements-dev.txt", "requirements-test.txt", "pipfile"),
        *("pipfile.lock", "environment.yml", "conda-env.yaml", "manifest.in"),
    )
)
"""Files of the agent's, in lower case, that give way to the original project's."""
_PASSED = re.compile(r"(\d+) passed")
_DOCKER_ERRORS = (docker.errors.DockerException, requests.exceptions.RequestException)


class Nl2Repo:
    """The suite of projects to be written from a specification."""

    name = "nl2repo"

    def load(self, dataset: str | None) -> list[Instance]:
        """Read the tasks. ``dataset`` is a folder of task folders, or one task folder."""
        if dataset is None or not Path(dataset).is_dir():
            raise DatasetError("the suite nl2repo needs --dataset FOLDER with task folders")
        root = Path(dataset).resolve()
        found = sorted(root.glob("*/test_commands.json")) or [*root.glob("test_commands.json")]
        if not found:
            raise DatasetError(f"there is no */test_commands.json in {dataset}")
        return unique([_instance(path.parent) for path in found])

    @contextmanager
    def place(self, instance: Instance, machine: Machine) -> Iterator[TaskPlace]:
        with scratch_folder("project") as folder:
            repo = folder / "workspace"
            repo.mkdir()
            (repo / "start.md").write_text(instance.row["start"], "utf-8")
            begin_repository(repo)
            yield TaskPlace(repo)

    def grade(
        self,
        instances: Sequence[Instance],
        patches: Mapping[str, str],
        machine: Machine,
        *,
        folder: Path,
        workers: int = 1,
    ) -> list[Verdict]:
        """Run the original project's tests over what the patch adds."""

        def one(instance: Instance, patch: str) -> Verdict:
            image = machine.images.ensure(instance.id, instance.row["image"])
            with self.place(instance, machine) as place:
                workspace = Workspace.create(place.repo)
                try:
                    workspace.apply_to(workspace.path, patch)
                    files = _packed(workspace.path, instance.row["files"])
                except WorkspaceError as error:
                    told = f"the patch does not apply: {error}"
                    return Verdict(instance.id, False, reason=told)
                finally:
                    workspace.close()
            return _verdict(instance, _run(instance, image, files, machine))

        return grade_each(one, instances, patches, workers)


def _instance(folder: Path) -> Instance:
    try:
        row = {
            "start": (folder / "start.md").read_text("utf-8"),
            "count": int((folder / "test_case_count.txt").read_text("utf-8")),
            "commands": json.loads((folder / "test_commands.json").read_text("utf-8")),
            "files": json.loads((folder / "test_files.json").read_text("utf-8")),
            "image": IMAGE.format(name=folder.name.lower()),
        }
        for key in ("commands", "files"):
            if not isinstance(row[key], list) or not all(isinstance(x, str) for x in row[key]):
                raise ValueError(f"test_{key}.json must be a list of texts")
        if row["count"] < 1 or not row["commands"]:
            raise ValueError("it has no tests")
    except (OSError, ValueError) as error:
        told = f"the task {folder.name} cannot be read: {error}"
        return Instance(folder.name, "", folder=folder, refused=told)
    return Instance(folder.name, TEXT, row=row, folder=folder)


def _packed(workspace: Path, tests: Sequence[str]) -> bytes:
    """Return the agent's files as a tar, without packaging files and the paths of ``tests``."""
    for path in list(workspace.rglob("*")):
        if path.name.lower() in PACKAGING and not path.is_dir():
            path.unlink()
    for name in tests:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or name.startswith("/"):
            continue
        path = workspace.joinpath(*parts)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(workspace.iterdir()):
            if path.name != ".git":
                archive.add(path, arcname=path.name)
    return buffer.getvalue()


def _run(instance: Instance, image: str, files: bytes, machine: Machine) -> list[tuple[str, str]]:
    """Run each command of the task in one fresh container; return it with its output."""
    settings = machine.settings
    limit = settings.check_timeout
    client = connect(timeout=int(limit) + 120)
    container: Any = None
    try:
        container = client.containers.create(
            image,
            ["-c", "sleep infinity"],
            entrypoint="sh",
            working_dir=HOME,
            labels={OWNER_LABEL: str(Owner.of_this_process())},
            network_mode="bridge" if settings.online else "none",
            mem_limit=f"{settings.memory_mb}m",
            nano_cpus=int(settings.cpus * 1e9),
            pids_limit=2048,
            security_opt=["no-new-privileges"],
        )
        container.start()
        container.put_archive(HOME, files)
        found = []
        for command in instance.row["commands"]:
            script = f'export PYTHONPATH={HOME}"${{PYTHONPATH:+:$PYTHONPATH}}"\n{command}'
            done = container.exec_run(
                ["timeout", "-k", "10", f"{limit:g}", "bash", "-c", script], workdir=HOME
            )
            found.append((command, done.output.decode("utf-8", "replace")))
        return found
    except docker.errors.APIError as error:
        told = " ".join(str(error).split())[:200]
        raise SandboxUnavailable(f"the tests could not run in {image}: {told}") from error
    except _DOCKER_ERRORS as error:
        raise engine_trouble(error) from error
    finally:
        if container is not None:
            with suppress(*_DOCKER_ERRORS):
                container.remove(force=True, v=True)
        client.close()


def _verdict(instance: Instance, outputs: Sequence[tuple[str, str]]) -> Verdict:
    """Count the tests that passed in the output of the commands that run pytest."""
    passed = sum(
        int(number)
        for command, output in outputs
        if "pytest" in command
        for number in _PASSED.findall(output)
    )
    count = instance.row["count"]
    text = "".join(f"$ {command}\n{output}\n" for command, output in outputs)[-OUTPUT_KEPT:]
    reason = "" if passed >= count else f"{passed} of {count} tests pass"
    return Verdict(instance.id, passed >= count, min(passed / count, 1.0), reason, text)
