"""The tag queries, one a language: what is a definition, and what is a mention that reaches out."""

from __future__ import annotations

from pathlib import Path

SPLIT = ";; references"


def query_text(language: str) -> str:
    """The query of ``language``: definitions, a line ``;; references``, references."""
    return (Path(__file__).parent / f"{language}.scm").read_text("utf-8")
