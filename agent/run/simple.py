"""One call for Python programs: settings, model and client made from plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.client import Client
from agent.errors import AgentError, ConfigError
from agent.events import Event, Listener, nobody
from agent.loading import LoadedModel, load_for
from agent.run.build import prepare
from agent.run.open_session import OpenSession
from agent.run.report import status_of
from agent.run.solve import solve
from agent.settings.load import load_settings
from agent.settings.table import Settings
from agent.types import SolveReport, Step, Task

__all__ = [
    "AgentError",
    "Client",
    "ConfigError",
    "Event",
    "LoadedModel",
    "OpenSession",
    "Settings",
    "SolveReport",
    "Step",
    "Task",
    "load_for",
    "load_settings",
    "solve",
    "solve_task",
    "status_of",
]


def solve_task(
    repo: Path | str,
    text: str,
    *,
    apply: bool = False,
    listen: Listener = nobody,
    **settings: Any,
) -> SolveReport:
    """Work on ``text`` in the git repository ``repo`` and return what came of it.

    ``settings`` are those of ``docs/usage.md`` by their keys, over the user's and the repository's
    configuration: ``model``, ``sandbox``, ``check``, ``max_steps`` … The repository is only read
    unless ``apply`` asks for a good patch to be put there. Raises ``ConfigError``, and the errors
    of ``model`` and ``sandboxes`` where a run cannot begin.
    """
    place = Path(repo)
    chosen = prepare(load_settings(settings, place), repo=place, listen=listen)
    task = Task(text, place, chosen.check)
    return solve(task, chosen, load_for(chosen), Client(listen), apply=apply)
