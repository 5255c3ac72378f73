"""Text that a person gives as an argument, or through stdin with ``-``."""

from __future__ import annotations

import sys

from agent.cli.output import is_terminal
from agent.errors import ConfigError

MAX_BYTES = 1_000_000


def read_text(argument: str, what: str) -> str:
    """Return the argument, or stdin for ``-``; ``what`` names it in errors.

    Raises ``ConfigError`` if there is none.
    """
    if argument != "-":
        text = argument
    elif sys.stdin is None or is_terminal(sys.stdin):
        raise ConfigError(f"no {what}: write it as an argument, or pipe it in")
    else:
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"the {what} is longer than {MAX_BYTES:,} bytes; shorten it")
        text = data.decode("utf-8", "replace")
    # An argument that was no UTF-8 arrives with surrogates in it, which no tokenizer takes.
    text = text.encode("utf-8", "replace").decode("utf-8").strip()
    if not text:
        raise ConfigError(f"the {what} is empty: say what to do")
    return text
