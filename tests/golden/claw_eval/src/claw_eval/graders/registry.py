"""Finding the grader of a task."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from claw_eval.graders.base import AbstractGrader


def get_grader(task_id: str, tasks_dir: Path, task_dir: Path) -> Any:
    """Return the grader that ``grader.py`` of the task defines."""
    spec = importlib.util.spec_from_file_location(f"grader_{task_id}", task_dir / "grader.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return next(
        found()
        for found in vars(module).values()
        if isinstance(found, type)
        and issubclass(found, AbstractGrader)
        and found is not AbstractGrader
    )
