"""A task as its YAML file has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict


class TaskDefinition(BaseModel):
    """The keys of a task, whatever they are."""

    model_config = ConfigDict(extra="allow")

    task_id: str
    prompt: dict[str, Any]
    local_grader_files: list[str] = []

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read a task."""
        return cls.model_validate(yaml.safe_load(path.read_text("utf-8")))
