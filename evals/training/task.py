"""One repair task: a module with one wrong line, a test that shows it, and an issue text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from evals.training.oracle import OracleRepair


@dataclass(frozen=True)
class RepairTask:
    """One task. ``line`` (0-based, in ``module``) must become ``fixed``; ``kind`` names the bug.

    ``beside`` are other files of the repository, by path.
    """

    instance_id: str
    source: str
    name: str
    path: str
    module: str
    test_path: str
    test: str
    issue: str
    kind: str
    line: int
    fixed: str
    beside: dict[str, str] = field(default_factory=dict)

    @property
    def fix(self) -> OracleRepair:
        """The edit that repairs the module."""
        return OracleRepair(self.kind, self.line, self.fixed)

    @property
    def files(self) -> dict[str, str]:
        """The repository: path to content."""
        return {self.path: self.module, self.test_path: self.test, **self.beside}


def write_tasks(tasks: Iterable[RepairTask], path: Path) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(asdict(task)) + "\n" for task in tasks))


def read_tasks(path: Path) -> Iterator[RepairTask]:
    """Read the tasks that ``write_tasks`` wrote."""
    for line in filter(None, path.read_text("utf-8").split("\n")):
        yield RepairTask(**json.loads(line))
