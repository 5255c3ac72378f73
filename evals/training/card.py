"""Prints of the texts that a model was trained on, kept beside its weights.

The weights know the chat template, the tokenizer and every word of the training documents, which
hold what the tools say. Where one of these changes, the model must be trained again: a test
compares ``trained_on.json`` with the prints of today.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

from evals.training import oracle
from evals.training.documents import trajectory
from evals.training.oracle import OracleRepair
from evals.training.task import RepairTask

NAME = "trained_on.json"
FILES = ("chat_template.jinja", "tokenizer.json", "config.json")
MODULE = "def clamp(x, low, high):\n    if x < low:\n        return low\n    return min(x, low)\n"
TEST = "from bounds import clamp\n\n\ndef test_clamp():\n    assert clamp(5, 1, 3) == 3\n"
ISSUE = "`clamp` in `bounds.py` is wrong: `clamp(5, 1, 3)` returns 1, expected 3."
TASK = RepairTask(
    "print.clamp", "print", "clamp", "bounds.py", MODULE, "test_bounds.py", TEST, ISSUE,
    "variable", 3, "return min(x, high)",
)  # fmt: skip


def sample_text() -> str:
    """Return a run on a fixed task, and a second try: every phrase that documents are made of.

    Which lines documents choose to break is no text that the model knows, so no choice is in it.
    """
    run = trajectory(random.Random(0), TASK, misses=0)
    assert run is not None
    wrong = OracleRepair("comparison", 1, "if x <= low:")
    again = oracle.attempt_turn(TASK.path, TASK.module, TASK.fix, wrong)
    edited = oracle.observation_text([f"Edited {TASK.path}: 1 replacement."])
    return run.text + oracle.assistant_text(again) + edited


def prints(directory: Path) -> dict[str, str]:
    """Return the first half of the SHA-256 of each text, by name."""
    found = {name: (directory / name).read_bytes() for name in FILES}
    found["documents"] = sample_text().encode()
    return {name: hashlib.sha256(data).hexdigest()[:32] for name, data in found.items()}


def write_prints(directory: Path) -> None:
    """Write the prints of today beside the weights that were trained today."""
    (directory / NAME).write_text(json.dumps(prints(directory), indent=2) + "\n")
