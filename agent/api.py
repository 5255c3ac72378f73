"""The public surface of the agent for Python programs; ``docs/python.md`` shows it at work.

``solve_task`` is the whole of ``agent solve`` in one call. ``OpenSession`` is what the chat and the
editor hold: turns, checks, rewinds, forks. Other modules may move; these names stay.
"""

from __future__ import annotations

from agent.run.simple import (
    AgentError,
    Client,
    ConfigError,
    Event,
    LoadedModel,
    OpenSession,
    Settings,
    SolveReport,
    Step,
    Task,
    load_for,
    load_settings,
    solve,
    solve_task,
    status_of,
)

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
