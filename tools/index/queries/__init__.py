"""The tag queries, one a language: what is a definition, and what is a mention that reaches out."""

from __future__ import annotations

from pathlib import Path

SPLIT = ";; references"
_BEGINS_WITH = {"tsx": "typescript"}
"""A language whose query is another's and some references more."""


def query_text(language: str) -> str:
    """Read the query of ``language``: definitions, a line ``;; references``, references."""
    text = (Path(__file__).parent / f"{language}.scm").read_text("utf-8")
    base = _BEGINS_WITH.get(language)
    return text if base is None else query_text(base) + text
