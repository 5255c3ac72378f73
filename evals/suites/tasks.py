"""Plain tasks, one JSON object a line: a repository on this machine, an issue, a check.

``repo`` is a folder, from the file's own folder; ``issue`` is what the model is told; ``check`` is
the command that passes once it is done, which the model is told too. ``id`` (else the repository's
name) and ``image`` may be left out.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evals.errors import DatasetError
from evals.instance import Instance, TaskPlace
from evals.suites.dataset import read_rows, require, unique
from evals.suites.suite import Machine, Verdict, grade_each, run_check


class Tasks:
    """The suite of plain tasks."""

    name = "tasks"

    def load(self, dataset: str | None) -> list[Instance]:
        if dataset is None:
            raise DatasetError("the suite tasks needs --dataset FILE.jsonl")
        home = Path(dataset).resolve().parent
        instances = []
        seen: dict[Path, str] = {}
        for number, row in enumerate(read_rows(dataset), start=1):
            require(row, number, ("repo", "issue", "check"), "the suite tasks")
            repo = (home / str(row["repo"])).resolve()
            if not repo.is_dir():
                raise DatasetError(f"row {number}: the repository {repo} is not a folder")
            name = str(row.get("id") or row.get("instance_id") or repo.name)
            if repo not in seen:
                seen[repo] = state_of(repo)
            instances.append(
                Instance(
                    name,
                    str(row["issue"]),
                    str(row["check"]),
                    row.get("image"),
                    row,
                    folder=repo,
                    files=seen[repo],
                )
            )
        return unique(instances)

    @contextmanager
    def place(self, instance: Instance, machine: Machine) -> Iterator[TaskPlace]:
        settings: dict[str, Any] = {}
        if instance.image is not None:
            settings["image"] = machine.images.ensure(instance.id, instance.image)
        assert instance.folder is not None
        yield TaskPlace(instance.folder, settings)

    def grade(
        self,
        instances: Sequence[Instance],
        patches: Mapping[str, str],
        machine: Machine,
        *,
        folder: Path,
        workers: int = 1,
    ) -> list[Verdict]:
        """By the check, in a fresh sandbox over the repository as it is now."""

        def one(instance: Instance, patch: str) -> Verdict:
            with self.place(instance, machine) as place:
                return run_check(instance.id, place, patch, instance.check or "", machine)

        return grade_each(one, instances, patches, workers)


def state_of(repo: Path) -> str:
    """Return a hash of a repository's commit and of what changed since; "" if it is none."""
    quiet = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_OPTIONAL_LOCKS": "0"}
    digest = hashlib.sha256()
    for arguments in (["rev-parse", "HEAD"], ["diff", "--no-ext-diff", "--no-textconv", "HEAD"]):
        # A repository's own settings may name programs to run.
        own = ["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]
        done = subprocess.run(
            ["git", *own, "-C", str(repo), *arguments], env=quiet, capture_output=True, check=False
        )
        if done.returncode != 0:
            return ""
        digest.update(done.stdout)
    return digest.hexdigest()
