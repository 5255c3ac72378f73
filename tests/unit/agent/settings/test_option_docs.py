"""The tables of docs/usage.md are those that the table of options gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]


def test_the_tables_of_the_usage_page_are_current() -> None:
    command = [sys.executable, "scripts/option_docs.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
