"""The tags of our own images, apart from what needs the engine's library."""

from __future__ import annotations

BASE_TAG = "tenuto/base:1"
BROWSER_TAG = "tenuto/browser:1"
"""The base image with Chromium in it, for the screenshot tool."""


def build_command(tag: str) -> str | None:
    """Return the command that builds one of our own images; None for another image."""
    return {BASE_TAG: "agent sandbox build", BROWSER_TAG: "agent sandbox build --browser"}.get(tag)
