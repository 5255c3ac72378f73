"""The loop that joins the model and the tools, and the command line around it."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """Return the installed version, or ``unknown`` in a plain clone that was never installed."""
    try:
        return metadata.version("tenuto")
    except metadata.PackageNotFoundError:
        return "unknown"
