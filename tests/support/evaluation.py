"""A data set of small repair tasks, and a scripted model that solves each in its own way."""

from __future__ import annotations

import json
from pathlib import Path

NAMES = ("add", "count", "join", "scale", "shift")


def write_tasks(path: Path, count: int) -> Path:
    """``count`` rows for the suite repair; each module is another one."""
    rows = []
    for number in range(count):
        name = f"{NAMES[number % len(NAMES)]}{number}"
        rows.append(
            {
                "instance_id": f"task-{number:02}",
                "issue": f"`{name}` in `{name}.py` is wrong: `{name}(2, 1)` returns 1, expected 3.",
                "path": f"{name}.py",
                "module": f"def {name}(a, b):\n    return a - b\n",
                "test_path": f"test_{name}.py",
                "test": f"from {name} import {name}\n\n\ndef test_it():\n"
                f"    assert {name}(2, 1) == 3\n",
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def call(name: str, **parameters: str) -> str:
    """A tool call as the model writes it."""
    body = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in parameters.items())
    return f"<tool_call>\n<function={name}>\n{body}</function>\n</tool_call>"


def turns() -> tuple[str, ...]:
    """Two turns that repair any of the tasks."""
    repair = "sed -i 's/a - b/a + b/' [a-s]*[0-9].py && ls"
    return (
        f"Mend it.\n</think>\n\n{call('run_shell_command', command=repair)}",
        f"Done.\n</think>\n\n{call('submit', summary='it adds now')}",
    )
