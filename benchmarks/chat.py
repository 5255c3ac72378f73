"""Measure the chat as a person meets it, in a pseudo-terminal.

    python -m benchmarks.chat [--starts 5] [--keys 100] [--lines 2000] [--turns 200] [--record]

``start``     seconds from the process's start to the prompt, of the real ``agent`` command
``echo``      seconds from a key to its character on the screen while a long prompt is prefilled
``first``     seconds from Enter to the first change of the screen
``esc``       seconds from Esc to "stopped", while the model speaks
``repaints``  how often the whole screen was cleared while ``--lines`` lines streamed in
``memory``    resident bytes after 20 turns and after ``--turns``

All but ``start`` use a scripted chat (``tests/support/scripted_chat.py``) or, for ``echo``, the
embedded checkpoint, whose prefill computes for real. Checked before anything is recorded: every
key came back in order, every streamed line is on the screen once, every turn was answered. There is
no peer here that runs its model in the process; figures of others are not compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from benchmarks.support.recording import machine, record
from tests.support.make_tiny_checkpoint import make
from tests.support.terminal import Terminal

ROOT = Path(__file__).resolve().parents[1]
AGENT = [str(Path(sys.executable).parent / "agent")]
PROMPT = "›".encode()
CLEARS = (b"\x1b[2J", b"\x1b[H\x1b[J", b"\x1b[?1049h")
"""The sequences that clear the whole screen or take it over."""


class Timed(Terminal):
    """A terminal that reads as soon as there is something, so that moments can be told apart."""

    def until(self, found: Any, within_s: float = 120.0) -> float:
        """Read until ``found(self)``; return the moment. Raises ``AssertionError``."""
        began = perf_counter()
        while perf_counter() - began < within_s:
            if found(self):
                return perf_counter()
            self.step()
        raise AssertionError(f"it never came:\n{self.text}")

    def step(self) -> None:
        """Take in what there is within a millisecond."""
        import pexpect

        try:
            data = self.child.read_nonblocking(65536, timeout=0.001)
        except (pexpect.TIMEOUT, pexpect.EOF):
            return
        self.raw += data
        self._stream.feed(data)
        if b"\x1b[6n" in data:
            cursor = self.screen.cursor
            self.child.send(f"\x1b[{cursor.y + 1};{cursor.x + 1}R")


@contextmanager
def repository() -> Iterator[Path]:
    """Yield a folder with a git repository ``repo`` in it."""
    with TemporaryDirectory(prefix="tenuto-bench-") as top:
        repo = Path(top) / "repo"
        repo.mkdir()
        (repo / "a.py").write_text("x = 1\n")
        subprocess.run(["git", "init", "-q", str(repo)], check=True)
        yield Path(top)


def places(top: Path) -> dict[str, str]:
    """Return the variables that keep state, configuration and caches below ``top``."""
    return {f"XDG_{kind}_HOME": str(top / kind) for kind in ("STATE", "CONFIG", "CACHE")}


def real(top: Path) -> Timed:
    """Start ``agent`` itself with the embedded checkpoint."""
    words = [*AGENT, "--sandbox", "local", "--model", "embedded"]
    return Timed(words, cwd=top / "repo", env=places(top), columns=100)


@contextmanager
def scripted(top: Path, turns: list[str]) -> Iterator[Timed]:
    """Yield a chat whose model says ``turns``, once its session is open."""
    file = top / "turns.json"
    file.write_text(json.dumps(turns))
    program = [sys.executable, "-m", "tests.support.scripted_chat"]
    words = [*program, str(make(top / "checkpoint")), str(top / "repo"), str(file)]
    chat = Timed(words, cwd=ROOT, env=places(top), columns=100)
    try:
        chat.until(lambda c: "context 0 of" in c.text)
        yield chat
    finally:
        chat.close()


def says(text: str) -> str:
    """Return a turn of words."""
    return f"Think.\n</think>\n\n{text}"


def starts(top: Path, count: int) -> list[float]:
    """Return the seconds to the prompt of ``count`` starts, the first left out: it fills caches."""
    seconds = []
    for _ in range(count + 1):
        began = perf_counter()
        chat = real(top)
        seconds.append(chat.until(lambda c: PROMPT in c.raw) - began)
        chat.close()
    return seconds[1:]


def echo(top: Path, keys: int) -> list[float]:
    """Type into a chat that prefills a long prompt; return each key's seconds to the screen."""
    chat = real(top)
    try:
        chat.until(lambda c: "context 0 of" in c.text)
        long = "word " * 6000
        chat.type(f"\x1b[200~{long}\x1b[201~")
        chat.until(lambda c: "[pasted text 1:" in c.text)
        chat.type("\r")
        chat.until(lambda c: "reading" in c.text)
        seconds, typed = [], ""
        for number in range(keys):
            letter = "abcdefghij"[number % 10]
            typed += letter
            began = perf_counter()
            chat.type(letter)
            shown = typed[-20:]
            seconds.append(chat.until(lambda c, s=shown: s in c.text.replace("\n", "")) - began)
            if "reading" not in chat.text:
                break
        assert len(seconds) >= min(keys, 20), "the prompt was read before enough keys were typed"
        return seconds
    finally:
        chat.close()


def first_update(top: Path, count: int) -> list[float]:
    """Return the seconds from Enter to the first change that tells that the message was taken."""
    seconds = []
    with scripted(top, [says(f"Answer {n}.") for n in range(count)]) as chat:
        for number in range(count):
            chat.type(f"question {number}")
            chat.until(lambda c, n=number: f"› question {n}" in c.text)
            shown = chat.text.count(f"› question {number}")
            chat.type("\r")
            began = perf_counter()
            raw = len(chat.raw)
            seconds.append(chat.until(lambda c, r=raw: len(c.raw) > r) - began)
            chat.until(lambda c, n=number: f"Answer {n}." in c.text)
            assert chat.text.count(f"› question {number}") == shown
    return seconds


def escape(top: Path) -> float:
    """Return the seconds from Esc to the words that say that the turn has stopped."""
    with scripted(top, [says("word " * 200_000)]) as chat:
        chat.type("speak\r")
        chat.until(lambda c: "word word" in c.text)
        chat.type("\x1b")
        began = perf_counter()
        return chat.until(lambda c: "stopped; what was done is kept" in c.text) - began


def streamed(top: Path, lines: int) -> tuple[int, int]:
    """Stream ``lines`` lines; return how often the screen was cleared, and the bytes written."""
    text = "\n\n".join(f"line {number} of the answer" for number in range(lines))
    with scripted(top, [says(text)]) as chat:
        before = len(chat.raw)
        chat.type("speak\r")
        chat.until(lambda c: f"line {lines - 1} of the answer" in c.text, within_s=600)
        raw = chat.raw[before:]
    shown = chat.text
    for number in range(max(0, lines - 1000), lines):
        assert shown.count(f"line {number} of the answer\n") == 1, (
            f"line {number} is not there once"
        )
    return sum(raw.count(clear) for clear in CLEARS), len(raw)


def memory(top: Path, turns: int) -> dict[str, int]:
    """Return the resident bytes after 20 turns and after all."""
    with scripted(top, [says(f"Answer {n}.") for n in range(turns)]) as chat:
        found = {}
        for number in range(turns):
            chat.type(f"q{number}\r")
            chat.until(lambda c, n=number: f"Answer {n}." in c.text)
            if number + 1 in (20, turns):
                pages = int(Path(f"/proc/{chat.child.pid}/statm").read_text().split()[1])
                found[f"after_{number + 1}_turns"] = pages * os.sysconf("SC_PAGE_SIZE")
        return found


def part(seconds: list[float], share: float) -> float:
    """Return the value below which ``share`` of ``seconds`` lie (nearest rank)."""
    ranked = sorted(seconds)
    return round(ranked[min(len(ranked) - 1, int(share * len(ranked)))], 4)


def main() -> None:
    """Measure everything, print it, and record it if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/chat.json")
    args = parser.parse_args()
    os.environ.pop("NO_COLOR", None)
    result: dict[str, Any] = machine("prompt_toolkit", "rich")
    with repository() as top:
        seconds = starts(top, args.starts)
        result["start_s"] = {"median": part(seconds, 0.5), "worst": round(max(seconds), 4)}
    with repository() as top:
        seconds = echo(top, args.keys)
        result["echo_s"] = {
            "keys": len(seconds),
            "p50": part(seconds, 0.5),
            "p99": part(seconds, 0.99),
        }
    with repository() as top:
        seconds = first_update(top, 20)
        result["first_update_s"] = {"p50": part(seconds, 0.5), "worst": round(max(seconds), 4)}
    with repository() as top:
        result["esc_to_idle_s"] = round(escape(top), 4)
    with repository() as top:
        cleared, written = streamed(top, args.lines)
        result["streamed"] = {"lines": args.lines, "full_repaints": cleared, "bytes": written}
    with repository() as top:
        result["memory_bytes"] = memory(top, args.turns)
    print(json.dumps(result, indent=1))
    if args.record:
        print(record("chat", result))


if __name__ == "__main__":
    main()
