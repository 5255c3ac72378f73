"""Tell what stopped a command as one line on stderr."""

from __future__ import annotations

import os
import traceback

from agent.cli.output import write_err
from agent.text import DEBUG, EXIT_INTERRUPTED, Failure, explain


def tell(error: BaseException) -> Failure:
    """Write the line to stderr (and, if ``TENUTO_DEBUG`` is set, where it happened first)."""
    failure = explain(error)
    if os.environ.get(DEBUG, "") not in ("", "0"):
        write_err("".join(traceback.format_exception(error)))
    prefix = "" if failure.exit_code == EXIT_INTERRUPTED else "error: "
    write_err(f"{prefix}{failure.message}\n")
    return failure
