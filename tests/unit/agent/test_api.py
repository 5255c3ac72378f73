"""The agent's public surface: exactly these names, and one call that solves a task."""

from __future__ import annotations

from agent import api


def test_the_exported_names_are_these() -> None:
    assert api.__all__ == [
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
    assert all(hasattr(api, name) for name in api.__all__)
