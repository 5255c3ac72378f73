"""Goes on with a saved session, turn by turn, and says so after each save; to be killed."""

from __future__ import annotations

import sys
from pathlib import Path

from model.engine import Engine
from tests.support.soak import act


def main(checkpoint: Path, saved: Path) -> None:
    """Twenty turns at most."""
    session = Engine.load(checkpoint, name="tiny").resume(saved)
    for _ in range(20):
        act(session, ("extend", 7, 3))
        act(session, ("generate", 1, 4))
        session.save(saved)
        print("saved", flush=True)  # noqa: T201


main(Path(sys.argv[1]), Path(sys.argv[2]))
