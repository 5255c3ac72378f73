"""How a tool stops early."""

from __future__ import annotations


class ToolFailure(Exception):
    """A call that cannot be done. The message is for the model: what is wrong, what would work.

    Raised inside tools only; the registry turns it into an ``Observation`` with ``ok=False``.
    """
