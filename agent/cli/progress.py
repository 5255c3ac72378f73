"""A run told to a person at a terminal, on stderr: thinking dimmed, calls, what they gave.

To anything that is not a terminal nothing is told; the lines at the end come from the command.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from agent.cli.json_events import notice_of
from agent.cli.output import is_terminal
from agent.events import (
    CallDone,
    CallPlanned,
    CheckDone,
    Compacted,
    ContentDelta,
    Event,
    FromAttempt,
    Listener,
    Notice,
    Prefilled,
    RunEnded,
    RunStarted,
    StepDone,
    ThinkingDelta,
    nobody,
)
from agent.text import visible
from agent.types import CheckRun, Step

SHOWN_LINES = 12
SHOWN_CHARACTERS = 200
PREFILL_SHOWN_FROM = 2000


def terminal_listener() -> Listener:
    """A listener for this process's stderr; ``nobody`` if that is no terminal."""
    if not is_terminal(sys.stderr):
        return nobody
    return Progress(Console(stderr=True, highlight=False))


class Progress:
    """Prints events as they come. Text is never parsed as markup and never wraps a patch."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._open_style: str | None = None

    def __call__(self, event: Event) -> None:
        """Show one event; those that a reader need not see are passed over."""
        if isinstance(event, ThinkingDelta):
            self._stream(event.text, "dim italic")
        elif isinstance(event, ContentDelta):
            self._stream(event.text, "")
        elif isinstance(event, RunStarted):
            self._started(event)
        elif isinstance(event, Notice):
            self._line(event.text, "yellow")
        elif isinstance(event, Prefilled):
            if event.total >= PREFILL_SHOWN_FROM:
                self._line(f"read {event.done:,} of {event.total:,} tokens", "dim")
        elif isinstance(event, CallPlanned):
            self._line(f"▸ {event.call.name} {_arguments(event.call.arguments)}", "bold cyan")
        elif isinstance(event, CallDone):
            style = "" if event.observation.ok else "red"
            self._block(event.observation.text, style)
        elif isinstance(event, StepDone):
            self._line(_step_line(event.step), "dim")
        elif isinstance(event, CheckDone):
            self._checked(event.when, event.run)
        elif isinstance(event, Compacted):
            self._line(notice_of(event), "yellow")
        elif isinstance(event, FromAttempt):
            self._from_attempt(f"[{event.number}] ", event.event)

    def _from_attempt(self, mark: str, event: Event) -> None:
        """A line for each thing that happens in one of several attempts; their words would mix."""
        if isinstance(event, RunStarted):
            self._line(f"{mark}session {event.session}", "bold")
        elif isinstance(event, Notice):
            self._line(mark + event.text, "yellow")
        elif isinstance(event, CallPlanned):
            self._line(f"{mark}▸ {event.call.name} {_arguments(event.call.arguments)}", "cyan")
        elif isinstance(event, CallDone) and not event.observation.ok:
            self._line(f"{mark}  {_short(event.observation.text.split(chr(10))[0])}", "red")
        elif isinstance(event, StepDone):
            self._line(mark + _step_line(event.step), "dim")
        elif isinstance(event, CheckDone):
            verdict = "passes" if event.run.passed else "fails"
            self._line(f"{mark}check: {verdict}", "green" if event.run.passed else "red")
        elif isinstance(event, Compacted):
            self._line(mark + notice_of(event), "yellow")
        elif isinstance(event, RunEnded):
            self._line(f"{mark}{event.status}", "bold")

    def _started(self, event: RunStarted) -> None:
        attempt = f", attempt {event.attempt} of {event.attempts}" if event.attempts > 1 else ""
        self._line(
            f"session {event.session}: model {event.model}, sandbox {event.sandbox}{attempt}",
            "bold",
        )

    def _checked(self, when: str, run: CheckRun) -> None:
        verdict = "passes" if run.passed else "fails"
        self._line(f"check {when}: {verdict}", "green" if run.passed else "red")
        if output := run.output.rstrip("\n"):
            self._block("\n".join(output.split("\n")[-SHOWN_LINES:]), "dim")

    def _stream(self, text: str, style: str) -> None:
        if self._open_style is not None and self._open_style != style:
            self._close()
        self._open_style = style
        self._console.print(Text(visible(text), style=style), end="", soft_wrap=True)

    def _close(self) -> None:
        if self._open_style is not None:
            self._console.print()
        self._open_style = None

    def _line(self, text: str, style: str) -> None:
        self._close()
        self._console.print(Text(visible(text), style=style), soft_wrap=True)

    def _block(self, text: str, style: str) -> None:
        """A shortened block, indented."""
        lines = text.split("\n")
        shown = [_short(line) for line in lines[:SHOWN_LINES]]
        if len(lines) > SHOWN_LINES:
            shown.append(f"… {len(lines) - SHOWN_LINES} more lines")
        for line in shown:
            self._line(f"  {line}", style)


def _arguments(arguments: Mapping[str, Any]) -> str:
    """``file_path=src/a.py old_string=…`` on one line."""
    parts = (f"{name}={_short(str(value))}" for name, value in arguments.items())
    return _short(" ".join(parts).replace("\n", "⏎"))


def _step_line(step: Step) -> str:
    usage = step.usage
    return (
        f"step {step.index + 1}: {usage.prefilled_tokens:,} prefilled, "
        f"{usage.generated_tokens:,} generated, {usage.context_tokens:,} in context"
    )


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
