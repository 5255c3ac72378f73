"""Which version this is."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """The installed version, or ``unknown`` in a plain clone that was never installed."""
    try:
        return metadata.version("tenuto")
    except metadata.PackageNotFoundError:
        return "unknown"
