"""Read Claw-Eval's tasks out of the makers' checkout; see what each needs and whether it is there.

The format is that of ``claw-eval`` 1.1: ``tasks/ID/task.yaml`` beside ``grader.py``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from evals.errors import DatasetError
from evals.instance import Instance
from evals.suites.images import digest_of

WEB, WEB_KEY = "mock_services/web_real", "SERP_DEV_KEY"
"""The services that search the real web, and the variable with the key that they need."""
OURS = {
    "Bash": "run_shell_command",
    "Read": "read_file",
    "Write": "write_file",
    "Edit": "edit",
    "Glob": "glob",
    "Grep": "grep_search",
    "ReadMedia": "read_file",
}
"""The makers' tools in the container, and those of ours that do the same."""
_PARTS = ("src", "mock_services", "tasks")
_TABLES = ("prompt", "environment")
_LISTS = ("tools", "tool_endpoints", "services", "sandbox_files", "sandbox_grader_files")


def find_checkout(dataset: str | None) -> Path:
    """Return the folder of the makers' repository. Raises ``DatasetError``."""
    if dataset is None:
        raise DatasetError("the suite claw-eval needs --dataset FOLDER, a checkout of claw-eval")
    folder = Path(dataset).resolve()
    folder = folder.parent if folder.name == "tasks" else folder
    if lacks := [part for part in _PARTS if not (folder / part).is_dir()]:
        raise DatasetError(f"{dataset} is no checkout of claw-eval: it has no folder {lacks[0]}")
    return folder


def read_tasks(checkout: Path) -> list[Instance]:
    """Return all tasks, refused ones too. Raises ``DatasetError`` if there is none."""
    paths = sorted(checkout.glob("tasks/*/task.yaml"))
    if not paths:
        raise DatasetError(f"there is no tasks/*/task.yaml in {checkout}")
    common = digest_of(checkout / "src") + digest_of(checkout / "mock_services")
    return [_instance(path.parent, checkout, common) for path in paths]


def _instance(folder: Path, checkout: Path, common: str) -> Instance:
    name = folder.name
    try:
        data = yaml.safe_load((folder / "task.yaml").read_text("utf-8"))
        _check(data)
        text = str(data["prompt"]["text"])
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        told = " ".join(f"the task {name} cannot be read: {error}".split())[:300]
        return Instance(name, "", folder=folder, refused=told)
    files = hashlib.sha256((digest_of(folder) + common).encode()).hexdigest()
    row = {"task": data, "checkout": str(checkout)}
    return Instance(name, text, row=row, folder=folder, files=files, refused=_needs(name, data))


def _check(data: Any) -> None:
    """Raise ``ValueError`` if a key that we read is missing or of another type."""
    if not isinstance(data, dict):
        raise ValueError("it is no mapping")
    for key in _TABLES:
        if not isinstance(data.get(key, {}), dict):
            raise ValueError(f"{key} must be a mapping")
    for key in _LISTS:
        if not isinstance(data.get(key) or [], list):
            raise ValueError(f"{key} must be a list")
    if not isinstance(data.get("prompt", {}).get("text"), str):
        raise ValueError("prompt.text is missing")
    wanted = {
        "tools": ("name", "description"),
        "tool_endpoints": ("tool_name", "url"),
        "services": ("name", "command", "health_check"),
    }
    for key, fields in wanted.items():
        for item in data.get(key) or []:
            for field in fields:
                if not isinstance(item, dict) or not isinstance(item.get(field), str):
                    raise ValueError(f"an entry of {key} has no {field}")
    for key in ("timeout_seconds", "max_turns"):
        value = data.get("environment", {}).get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ValueError(f"environment.{key} must be a number above 0")


def _needs(name: str, data: Mapping[str, Any]) -> str:
    """Return what the task needs that is not there; "" if nothing."""
    if needs_web(data) and not os.environ.get(WEB_KEY):
        return f"the task {name} searches the web, for which {WEB_KEY} is not set"
    reached = {item["tool_name"] for item in data.get("tool_endpoints") or []}
    for tool in data.get("tools") or []:
        if tool["name"] not in reached and tool["name"] not in OURS:
            return f"the task {name} has the tool {tool['name']} without an address"
    return ""


def needs_web(data: Mapping[str, Any]) -> bool:
    """Return whether a service of the task searches the real web."""
    return any(WEB in item["command"] for item in data.get("services") or [])


def missing_files(instance: Instance) -> list[str]:
    """Return the task's files that its checkout lacks."""
    names = file_names(instance.row["task"])
    return [name for name in names if find_file(instance, name) is None]


def file_names(data: Mapping[str, Any]) -> list[str]:
    """Return the names of the files that the model is given."""
    named = data.get("sandbox_files") or data.get("environment", {}).get("fixtures") or []
    return [str(name) for name in named]


def find_file(instance: Instance, name: str) -> Path | None:
    """Return a file of the task, or of another one that it names; None if it is not there."""
    assert instance.folder is not None
    checkout = Path(instance.row["checkout"]).resolve()
    for folder in (instance.folder, checkout):
        path = (folder / name).resolve()
        if path.is_file() and path.is_relative_to(checkout):
            return path
    return None
