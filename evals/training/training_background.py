"""Train on in the background: ``python -m evals.training.training_background WORK``.

It runs at the lowest priority on one thread, found by its name, and may be stopped, continued and
killed at any moment; its next run goes on from the last checkpoint, at most two minutes older.
``WORK/training.pid`` holds its process id.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from evals.training.pipeline import train


def main() -> None:
    """Train until the last step."""
    work = Path(sys.argv[1])
    os.nice(19)
    (work / "training.pid").write_text(f"{os.getpid()}\n")
    train(work)


if __name__ == "__main__":
    main()
