"""SWE-bench and those like it: classic rows and rows of the 5.x format.

A row of the 5.x format brings its image and everything that the official harness grades with; a
classic row names neither, and its image is the official one of its id. The repository lies in the
image. Grading is the official ``swebench`` package's alone (``evals.suites.harness``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evals.errors import DatasetError
from evals.instance import Instance, TaskPlace
from evals.suites import harness
from evals.suites.dataset import Row, read_rows, require, unique
from evals.suites.images import repository_in
from evals.suites.suite import Machine, Verdict
from sandboxes.errors import ImageMissing, SandboxUnavailable

ALIASES = {
    "full": "SWE-bench/SWE-bench",
    "verified": "SWE-bench/SWE-bench_Verified",
    "lite": "SWE-bench/SWE-bench_Lite",
    "multilingual": "SWE-bench/SWE-bench_Multilingual",
}
WORKDIR = "/testbed"
COMPILED = frozenset(
    f"parse_log_{name}"
    for name in (
        *("gotest", "cargo", "maven", "ant", "gradle_custom", "jest", "jest_json", "vitest"),
        *("karma", "tap", "immutable_js", "phpunit", "minitest", "cucumber", "ruby_unit"),
        *("rspec_transformed_json", "jekyll", "redis", "jq", "doctest", "micropython_test"),
        "googletest",
    )
)
"""The log parsers of the languages whose tools keep their caches in the image's own folders."""
_RUNNING = ("instance_id", "repo", "problem_statement")


def is_new(row: Row) -> bool:
    """Tell whether the row is of the 5.x format, by any of its own fields."""
    return any(row.get(name) for name in ("image", "eval_script", "log_parser", "eval_type"))


def image_of(row: Row) -> str:
    """Return the image of a row; a classic row's has the published name of its id."""
    if row.get("image"):
        return str(row["image"])
    name = str(row["instance_id"]).replace("__", "_1776_").lower()
    return f"swebench/sweb.eval.x86_64.{name}:latest"


class SweBench:
    """The suite of SWE-bench and those like it."""

    name = "swebench"
    at_once = True
    """The harness is one process for all instances; it keeps what it has graded itself."""
    timeout_s = 1800.0
    """Seconds that the official harness gives the tests of one instance."""

    def load(self, dataset: str | None) -> list[Instance]:
        """Read the tasks. ``dataset`` is a file, an alias or a name on the hub."""
        if dataset is None:
            raise DatasetError(f"the suite swebench needs --dataset {'|'.join(ALIASES)}|FILE")
        rows = read_rows(ALIASES.get(dataset.lower(), dataset))
        instances = []
        for number, row in enumerate(rows, start=1):
            require(row, number, _RUNNING, "the suite swebench")
            if row.get("dockerhub_tag"):
                raise DatasetError(f"row {number} is of SWE-bench Pro: use the suite swebench-pro")
            if is_new(row):
                require(row, number, harness.FIELDS, "grading")
            instances.append(
                Instance(
                    row["instance_id"], str(row["problem_statement"]), image=image_of(row), row=row
                )
            )
        return unique(instances)

    @contextmanager
    def place(self, instance: Instance, machine: Machine) -> Iterator[TaskPlace]:
        if machine.settings.sandbox != "docker":
            raise SandboxUnavailable("the suite swebench runs in images; use --sandbox docker")
        assert instance.image is not None
        image = machine.images.ensure(instance.id, instance.image)
        with repository_in(image, WORKDIR) as (repo, search_path):
            settings: dict[str, Any] = {
                "image": image,
                "workdir": WORKDIR,
                "search_path": search_path,
                "ignored_files": True,
            }
            if instance.row.get("log_parser") in COMPILED:
                # Cargo, go, npm, maven and gradle write in caches that are root's in the image.
                settings["writable"] = True
            yield TaskPlace(repo, settings)

    def grade(
        self,
        instances: Sequence[Instance],
        patches: Mapping[str, str],
        machine: Machine,
        *,
        folder: Path,
        workers: int = 1,
    ) -> list[Verdict]:
        """By ``swebench eval``, whose files stay in ``folder``."""
        chosen = [instance for instance in instances if instance.id in patches]
        rows, verdicts = [], []
        for number, instance in enumerate(chosen, start=1):
            require(dict(instance.row), number, harness.FIELDS, "grading by swebench 5")
            try:
                image = machine.images.ensure(instance.id, str(instance.image))
            except ImageMissing as error:
                verdicts.append(Verdict(instance.id, None, reason=f"not graded: {error}"))
            else:
                rows.append({**instance.row, "image": image})
        if rows:
            own = {str(row["instance_id"]): patches[str(row["instance_id"])] for row in rows}
            limit = machine.settings.check_timeout
            verdicts += harness.evaluate(rows, own, folder, timeout_s=limit, workers=workers)
        return verdicts
