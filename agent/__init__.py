"""The loop that joins the model and the tools, and the command line around it."""

from __future__ import annotations


def version() -> str:
    """Return the installed version, or ``unknown`` in a plain clone that was never installed."""
    # Late: the chat's prompt does not wait for it.
    from importlib import metadata

    try:
        return metadata.version("tenuto")
    except metadata.PackageNotFoundError:
        return "unknown"
