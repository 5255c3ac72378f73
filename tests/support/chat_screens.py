"""The chat's golden screens: what is said and typed, and the screen as text.

    python -m tests.support.chat_screens

writes ``tests/golden/chat/COLUMNS.txt`` anew. Figures that differ from run to run are masked.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]
SCREENS = ROOT / "tests" / "golden" / "chat"
WIDTHS = (40, 80, 120)
SCREEN_ROWS = 60
FILES = {"calc.py": "def add(a, b):\n    return a - b\n"}
_SAID = """Two things are **wrong** in `calc.py`:

1. it subtracts where the name says that it adds, and this item is long enough to be wrapped
2. nothing tests it

| name | says |
|------|------|
| add  | a - b |

```python
def add(a, b):
    return a + b
```"""


def _call(name: str, **parameters: str) -> str:
    body = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in parameters.items())
    return f"<tool_call>\n<function={name}>\n{body}</function>\n</tool_call>"


TURNS = (
    f"Look first.\n</think>\n\n{_SAID}\n\n" + _call("run_shell_command", command="seq 1 40"),
    "Now the edit.\n</think>\n\n"
    + _call("edit", file_path="calc.py", old_string="a - b", new_string="a + b"),
    "Done.\n</think>\n\nIt adds now.",
)


def play(chat: Terminal) -> str:
    """Type what the screens show into an open chat; return the text of the screen, masked."""
    chat.type("what is wrong in calc.py?\r")
    _wait(chat, "1 40: may it run?")
    asked = _masked(chat.text)
    chat.type("y")
    _wait(chat, "edit calc.py: may it run?")
    chat.type("y")
    _wait(chat, "It adds now.")
    chat.type("/context\r")
    _wait(chat, "3 steps")
    return f"{asked}\n\n=== the end\n\n{_masked(chat.text)}\n"


def _wait(chat: Terminal, words: str) -> None:
    """Wait for ``words``, however they are wrapped."""
    chat.wait(
        lambda text: (
            words in " ".join(text.split())
            and text.rstrip().rpartition("\n")[2].startswith("ask mode")
        )
    )


def _masked(text: str) -> str:
    """Return the screen without its footer, and without seconds and counts of words."""
    lines = text.rstrip().split("\n")[:-1]
    text = "\n".join(line.rstrip() for line in lines).strip("\n")
    text = re.sub(r"\d[\d,]* of [\d,]+ tokens\s\(\d+ %\)", "N of N tokens (N %)", text)
    text = re.sub(r"thought for \d+ s", "thought for N s", text)
    return re.sub(r"^(● .*?) · \d+\.\d s$", r"\1", text, flags=re.M)


def start(columns: int, folder: Path) -> Terminal:
    """Start a chat on a repository in ``folder`` and wait until its session is open."""
    from tests.support.make_tiny_checkpoint import make

    repo, turns = folder / "repo", folder / "turns.json"
    repo.mkdir()
    for name, text in FILES.items():
        (repo / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(repo)], check=True)
    turns.write_text(json.dumps(TURNS))
    command = [sys.executable, "-m", "tests.support.scripted_chat"]
    places = [str(make(folder / "checkpoint")), str(repo), str(turns)]
    own = {f"XDG_{kind}_HOME": str(folder / kind) for kind in ("STATE", "CONFIG", "CACHE")}
    chat = Terminal([*command, *places], cwd=ROOT, env=own, columns=columns, rows=SCREEN_ROWS)
    chat.wait("context 0 of")
    return chat


def main() -> None:
    """Write all screens."""
    os.environ.pop("NO_COLOR", None)
    SCREENS.mkdir(parents=True, exist_ok=True)
    for columns in WIDTHS:
        with TemporaryDirectory() as folder:
            chat = start(columns, Path(folder))
            try:
                (SCREENS / f"{columns}.txt").write_text(play(chat), "utf-8")
            finally:
                chat.close()


if __name__ == "__main__":
    main()
