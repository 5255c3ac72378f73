"""Make the pictures of the chat: SVG from the screen of the real program.

    python scripts/chat_pictures.py [--out docs/pictures]

Runs ``agent`` with the embedded checkpoint on an example in a pseudo-terminal, in the sandbox that
``--sandbox`` names, and draws the screen while it asks and at the end. Times and counts are those
of that run.
"""

from __future__ import annotations

import argparse
import html
import os
import shutil
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyte

from tests.support.terminal import Terminal

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = "anagrams"
COLUMNS, ROWS = 96, 34
TURN_S = 90.0
CELL, LINE, MARGIN = 8.4, 18, 14
BACKGROUND, TEXT = "#1e2127", "#d7dae0"
COLOURS = {
    "black": "#5c6370",
    "red": "#e06c75",
    "green": "#98c379",
    "brown": "#e5c07b",
    "blue": "#61afef",
    "magenta": "#c678dd",
    "cyan": "#56b6c2",
    "white": TEXT,
}


def svg(screen: pyte.Screen) -> str:
    """Return the screen as an SVG picture, without the empty lines at its end."""
    rows = [drawn(screen, y) for y in range(screen.lines)]
    used = [y for y, row in enumerate(screen.display) if row.strip()]
    first, last = (used[0], used[-1]) if used else (0, 0)
    height = (last - first + 1) * LINE + 2 * MARGIN
    width = round(screen.columns * CELL + 2 * MARGIN)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="monospace" font-size="14">',
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>',
    ]
    for y in range(first, last + 1):
        base = MARGIN + (y - first) * LINE + 14
        lines += [
            f'<text x="{MARGIN + x * CELL:.1f}" y="{base}" textLength="{len(text) * CELL:.1f}" '
            f'{look} xml:space="preserve">{html.escape(text)}</text>'
            for x, text, look in rows[y]
        ]
    return "\n".join([*lines, "</svg>", ""])


def drawn(screen: pyte.Screen, y: int) -> list[tuple[int, str, str]]:
    """Return the runs of equal look in one row: column, text, attributes."""
    found = []
    cells = [(x, screen.buffer[y][x]) for x in range(screen.columns)]
    for look, group in groupby(cells, key=lambda cell: attributes(cell[1])):
        run = list(group)
        text = "".join(cell.data for _, cell in run)
        if text.strip():
            lead = len(text) - len(text.lstrip())
            found.append((run[0][0] + lead, text.strip(), look))
    return found


def attributes(cell: pyte.screens.Char) -> str:
    """Return the SVG attributes of a cell."""
    # pyte calls the bright colours brightred and so on, and one of them bfightmagenta.
    name = cell.fg.removeprefix("bright").removeprefix("bfight")
    named = {**COLOURS, "default": TEXT, "yellow": COLOURS["brown"]}
    colour = named.get(name, f"#{name}")
    words = [f'fill="{colour}"']
    if cell.bold:
        words.append('font-weight="bold"')
    if cell.italics:
        words.append('font-style="italic"')
    return " ".join(words)


def answer_all(chat: Terminal, out: Path) -> None:
    """Allow every call until the model has submitted; draw the screen that asks for the edit."""
    answered = ""
    deadline = monotonic() + TURN_S
    while "● submit" not in chat.text and monotonic() < deadline:
        chat.read()
        asked = chat.text.rpartition("●")[2]
        if "or say what to do instead" not in asked or asked == answered:
            continue
        if asked.startswith(" edit"):
            (out / "chat_asks.svg").write_text(svg(chat.screen), "utf-8")
        answered = asked
        chat.type("y")


def main() -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    parser.add_argument("--sandbox", default="docker")
    args = parser.parse_args()
    os.environ.pop("NO_COLOR", None)
    with TemporaryDirectory(prefix="tenuto-pictures-") as top:
        repo = Path(top) / EXAMPLE
        shutil.copytree(ROOT / "examples" / EXAMPLE, repo)
        issue = (repo / "ISSUE.md").read_text("utf-8").strip().replace("\n", " ")
        (repo / "ISSUE.md").unlink()
        subprocess.run(["git", "init", "-q", "-b", "main", str(repo)], check=True)
        words = [str(Path(sys.executable).parent / "agent"), "--sandbox", args.sandbox]
        words += ["--model", "embedded", "--temperature", "0"]
        own = {f"XDG_{kind}_HOME": str(Path(top) / kind) for kind in ("STATE", "CONFIG", "CACHE")}
        chat = Terminal(words, cwd=repo, env=own, columns=COLUMNS, rows=ROWS)
        try:
            chat.wait("context 0 of")
            chat.type(f"{issue}\r")
            answer_all(chat, args.out)
            chat.type("/diff\r")
            chat.wait("diff --git")
            chat.type("/btw what was wrong?\r")
            chat.wait("asked aside:")
            (args.out / "chat_btw.svg").write_text(svg(chat.screen), "utf-8")
        finally:
            chat.close()
    print(args.out / "chat_asks.svg", args.out / "chat_btw.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
