"""Everything that can go wrong in the agent itself, as a tree.

AgentError               exit code 1
├── ConfigError          exit code 2: an unknown key, a value out of range, flags that do not fit
├── SessionNotFound      no saved session under that name, or several
├── StoreError           the state folder or a session in it cannot be read or written
│   └── TrajectoryError  a trajectory is damaged before its last line
└── BrokenInstall        the packages that belong together do not lie together

The trees of ``model.errors`` and ``sandboxes.errors`` stand beside this one; ``agent.text.explain``
turns all three into one line. Each message is one line: what is wrong and what to do.
"""

from __future__ import annotations


class AgentError(Exception):
    """Base of every error the agent raises on purpose."""

    exit_code = 1


class ConfigError(AgentError):
    """A flag, an environment variable or a configuration file asks for what cannot be."""

    exit_code = 2


class SessionNotFound(AgentError):
    """No saved session has that id, or more than one begins with it."""


class StoreError(AgentError):
    """The state folder, or a session in it, cannot be read or written."""


class TrajectoryError(StoreError):
    """A trajectory holds a line that is not a record, other than a last one cut short."""


class BrokenInstall(AgentError):
    """``model``, ``kernels``, ``tools`` or ``sandboxes`` do not lie beside ``agent``."""
