"""The error with which a tool stops early."""

from __future__ import annotations


class ToolFailure(Exception):
    """A call that cannot be done. The message tells the model what is wrong and what would work.

    Raised inside tools only; the registry turns it into an ``Observation`` with ``ok=False``.
    """
