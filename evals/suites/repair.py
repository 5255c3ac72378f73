"""Our own repair tasks: a small module with one wrong line, a test that shows it, an issue text.

The data set is what ``evals.training`` writes (``held_out.jsonl``); without one it is the example
repositories. A task is solved if its tests pass, put back as they were, and the patch touches the
module alone.
"""

from __future__ import annotations

import difflib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from evals.errors import DatasetError
from evals.instance import Instance, TaskPlace
from evals.scratch import scratch_folder
from evals.suites.dataset import Row, read_rows, require, unique
from evals.suites.suite import NOP_PATCH, Machine, Verdict, grade_each, run_check
from evals.training.oracle import replace_line

_PACKAGE = Path(__file__).resolve().parents[1]
_OWN = _PACKAGE / "examples"
EXAMPLES = _OWN if _OWN.is_dir() else _PACKAGE.parent / "examples"
"""The example repositories: in a wheel within this package, in a clone beside it."""
_FIELDS = ("instance_id", "issue", "path", "module", "test_path", "test")


def example_rows(folder: Path = EXAMPLES) -> list[Row]:
    """Read the examples as rows. Raises ``DatasetError`` where there are none."""
    fixes = json.loads((folder / "fixes.json").read_text("utf-8")) if folder.is_dir() else {}
    rows = []
    for issue in sorted(folder.glob("*/ISSUE.md")):
        (test,) = issue.parent.glob("test_*.py")
        (module,) = (path for path in issue.parent.glob("*.py") if path != test)
        rows.append(
            {
                "instance_id": issue.parent.name,
                "issue": issue.read_text("utf-8").strip(),
                "path": module.name,
                "module": module.read_text("utf-8"),
                "test_path": test.name,
                "test": test.read_text("utf-8"),
                "fix": fixes[issue.parent.name],
            }
        )
    if not rows:
        raise DatasetError("there are no examples here; give --dataset FILE.jsonl")
    return rows


class Repair:
    """The suite of one-line repairs."""

    name = "repair"

    def load(self, dataset: str | None) -> list[Instance]:
        rows = example_rows() if dataset is None else read_rows(dataset)
        for number, row in enumerate(rows, start=1):
            require(row, number, _FIELDS, "the suite repair")
            for name in ("path", "test_path"):
                place = PurePosixPath(str(row[name]))
                if place.is_absolute() or ".." in place.parts:
                    raise DatasetError(f"row {number}: its {name} leads out of the repository")
        return unique([Instance(r["instance_id"], r["issue"], CHECK, row=r) for r in rows])

    @contextmanager
    def place(self, instance: Instance, machine: Machine) -> Iterator[TaskPlace]:
        row = instance.row
        files = {row["path"]: row["module"], row["test_path"]: row["test"]}
        with repository(files) as repo:
            yield TaskPlace(repo)

    def solution(self, instance: Instance) -> str | None:
        """Return the patch of the one line that is wrong; None if the row does not say it."""
        row = instance.row
        wrong = row["module"].splitlines(keepends=True)
        if "fix" in row:
            right = row["module"].replace(row["fix"]["wrong"], row["fix"]["right"])
        elif "fixed" in row:
            right = replace_line(row["module"], row["line"], row["fixed"])
        else:
            return None
        name = row["path"]
        lines = difflib.unified_diff(wrong, right.splitlines(True), f"a/{name}", f"b/{name}")
        return f"diff --git a/{name} b/{name}\n" + "".join(lines)

    def grade(
        self,
        instances: Sequence[Instance],
        patches: Mapping[str, str],
        machine: Machine,
        *,
        folder: Path,
        workers: int = 1,
    ) -> list[Verdict]:
        """By the tests, and by which files the patch touches."""

        def one(instance: Instance, patch: str) -> Verdict:
            row = instance.row
            touched = [line for line in patch.splitlines() if line.startswith("diff --git ")]
            if patch != NOP_PATCH and touched != [f"diff --git a/{row['path']} b/{row['path']}"]:
                return Verdict(instance.id, False, reason=f"touches more than {row['path']}")
            with self.place(instance, machine) as place:
                tests = {row["test_path"]: row["test"]}
                return run_check(instance.id, place, patch, CHECK, machine, restore=tests)

        return grade_each(one, instances, patches, workers)


CHECK = "python3 -m pytest -q"


@contextmanager
def repository(files: Mapping[str, str]) -> Iterator[Path]:
    """Make a temporary git repository with these files in its first commit."""
    with scratch_folder("task") as folder:
        repo = folder / "repo"
        repo.mkdir()
        for path, text in files.items():
            (repo / path).write_text(text)
        quiet = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
        }
        identity = ["-c", "user.name=Tenuto", "-c", "user.email=tenuto@localhost"]
        for arguments in (
            ["init", "-q"],
            ["add", "."],
            [*identity, "commit", "-q", "-m", "A module and its test"],
        ):
            subprocess.run(["git", *arguments], cwd=repo, env=quiet, check=True)
        yield repo
