"""Events of a session as lines of the chat.

``Transcript.feed`` takes one event and returns the lines that are finished; ``live`` is what stands
above the prompt while something runs. No terminal is needed for either.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from agent.chat.call_lines import call_line, observation_lines
from agent.chat.stream import MarkdownStream
from agent.chat.style import Style
from agent.events import (
    CallDone,
    CallPlanned,
    CallRunning,
    CallWriting,
    CheckDone,
    CommandOutput,
    Compacted,
    ContentDelta,
    Event,
    FromAttempt,
    Notice,
    Prefilled,
    RunEnded,
    StepDone,
    ThinkingDelta,
    Working,
)
from agent.text import visible

LIVE_LINES = 6
PREFILL_SHOWN_FROM = 500


@dataclass
class Activity:
    """Work that runs now: a few words, since when, and its last line of output."""

    words: str
    since: float
    last: str = ""


@dataclass
class Transcript:
    """The chat's view of one session. Used on one thread.

    ``columns`` is the terminal's width, as ``resize`` told it last.
    """

    style: Style
    columns: int = 80
    show_thinking: bool = False
    folded: list[str] = field(default_factory=list)
    """The last long result in full, for the key that unfolds it."""
    _said: MarkdownStream = field(default_factory=MarkdownStream)
    _thought: str = ""
    _thinking_since: float | None = None
    _activity: Activity | None = None
    _spaced: bool = True

    def resize(self, columns: int) -> None:
        """Make the next lines for a terminal of ``columns`` columns."""
        self.columns = columns

    def feed(self, event: Event) -> list[str]:
        """Take one event; return the lines to print above the prompt."""
        match event:
            case Prefilled():
                self._prefilled(event)
                return []
            case ThinkingDelta():
                return self._think(event.text)
            case ContentDelta():
                return [*self._end_thinking(), *self._speak(event.text)]
            case CallWriting():
                self._doing(f"writing a call of {event.name}")
                return [*self._end_thinking(), *self._end_speech()]
            case CallPlanned():
                return [*self._end_thinking(), *self._end_speech()]
            case CallRunning():
                self._doing(call_line(event.call))
                return []
            case CommandOutput():
                self._output(event.text)
                return []
            case CallDone():
                return self._called(event)
            case StepDone():
                self._activity = None
                return [*self._end_thinking(), *self._end_speech()]
            case _:
                return self._other(event)

    def live(self) -> list[str]:
        """Return the lines of what runs now, at most ``LIVE_LINES``."""
        columns = self.columns
        if self._thinking_since is not None:
            seconds = time.monotonic() - self._thinking_since
            lines = self.style.text(f"thinking {seconds:.0f} s", "dim italic", columns=columns)
            if self.show_thinking:
                lines += self.style.text(_tail(self._thought, 3), "dim italic", columns=columns)
            return lines[:LIVE_LINES]
        if self._said.rest.strip():
            return self.style.text(self._said.tail(LIVE_LINES), columns=columns)[-LIVE_LINES:]
        if self._activity is not None:
            seconds = time.monotonic() - self._activity.since
            words = f"{self.style.dot} {self._activity.words} {self.style.dash} {seconds:.0f} s"
            lines = self.style.text(words, "cyan", columns=columns)[:2]
            if self._activity.last:
                lines += self.style.text(self._activity.last, "dim", columns=columns, indent=2)[:1]
            return lines
        return []

    def asked(self, text: str) -> list[str]:
        """Return the lines of what the user sent."""
        shown = text if len(text) <= 2000 else f"{text[:2000]}… [{len(text):,} characters]"
        lines = self.style.text(f"{self.style.arrow} {shown}", "bold", columns=self.columns)
        self._spaced = False
        return ["", *lines]

    def note(self, text: str, style: str = "yellow") -> list[str]:
        """Return the lines of a remark of the program's own."""
        return [*self._end_speech(), *self.style.text(text, style, columns=self.columns)]

    def waiting(self, words: str) -> None:
        """Show ``words`` as what runs now; an empty text for nothing."""
        self._activity = Activity(words, time.monotonic()) if words else None

    def end_turn(self) -> list[str]:
        """Return the lines that were still unfinished when the turn ended."""
        self._activity = None
        return [*self._end_thinking(), *self._end_speech()]

    def _other(self, event: Event) -> list[str]:
        match event:
            case Notice():
                return self.note(event.text)
            case Working(what=what):
                self.waiting(what)
                return []
            case CheckDone():
                verdict = "passes" if event.run.passed else "fails"
                colour = "green" if event.run.passed else "red"
                lines = self.note(f"check {event.when}: {verdict}", colour)
                if not event.run.passed:
                    lines += self._fold(event.run.output)
                return lines
            case Compacted():
                return self.note(
                    f"context given up for a summary: {event.before:,} to {event.after:,} tokens"
                )
            case FromAttempt(number=number, event=inner):
                return self._from_attempt(number, inner)
            case _:
                return []

    def _from_attempt(self, number: int, event: Event) -> list[str]:
        if isinstance(event, CallPlanned):
            return self.note(f"[{number}] {call_line(event.call)}", "cyan")
        if isinstance(event, CheckDone):
            verdict = "passes" if event.run.passed else "fails"
            return self.note(f"[{number}] check: {verdict}")
        if isinstance(event, RunEnded):
            return self.note(f"[{number}] {event.status}", "bold")
        return []

    def _prefilled(self, event: Prefilled) -> None:
        if event.total < PREFILL_SHOWN_FROM:
            return
        if event.done >= event.total:
            self._activity = None
            return
        running = self._activity
        since = (
            running.since if running and running.words.startswith("reading") else time.monotonic()
        )
        took = time.monotonic() - since
        rate = event.done / took if took > 0.2 else 0.0
        left = f", {(event.total - event.done) / rate:.0f} s left" if rate else ""
        speed = f" at {rate:,.0f} tokens/s{left}" if rate else ""
        words = f"reading {event.done:,} of {event.total:,} tokens{speed}"
        self._activity = Activity(words, since)

    def _think(self, text: str) -> list[str]:
        lines = self._end_speech()
        if self._thinking_since is None:
            self._thinking_since = time.monotonic()
        self._thought += text
        return lines

    def _end_thinking(self) -> list[str]:
        since, thought = self._thinking_since, self._thought.strip()
        self._thinking_since, self._thought = None, ""
        if since is None or not thought:
            return []
        self.folded = thought.split("\n")
        took = time.monotonic() - since
        words = f"thought for {took:.0f} s, {len(thought.split()):,} words"
        if self.show_thinking:
            words = thought
        return [*self._space(), *self.style.text(words, "dim italic", columns=self.columns)]

    def _speak(self, text: str) -> list[str]:
        self._activity = None
        done = self._said.feed(text)
        return self._markdown(done) if done.strip() else []

    def _end_speech(self) -> list[str]:
        done = self._said.flush()
        return self._markdown(done) if done.strip() else []

    def _markdown(self, text: str) -> list[str]:
        return [*self._space(), *self.style.markdown(text.strip("\n"), columns=self.columns)]

    def _called(self, event: CallDone) -> list[str]:
        took = time.monotonic() - self._activity.since if self._activity else 0.0
        self._activity = None
        columns, style = self.columns, self.style
        colour = "" if event.observation.ok else "red"
        head = f"{style.dot} {call_line(event.call)}"
        if took >= 1:
            head += f" {style.dash} {took:.1f} s"
        lines = [*self._space(), *style.text(head, f"bold {colour}".strip(), columns=columns)]
        shown, diff = observation_lines(event.call, event.observation)
        if diff:
            return lines + self._fold_lines(style.diff(diff, columns=columns), diff.split("\n"))
        return lines + self._fold("\n".join(shown), colour)

    def _fold(self, text: str, colour: str = "dim", most: int = 5) -> list[str]:
        lines = visible(text).rstrip("\n").split("\n") if text.strip() else []
        if len(lines) > most:
            self.folded = lines
        shown = lines if len(lines) <= most + 1 else lines[:most]
        out = [
            line
            for part in shown
            for line in self.style.text(_cut(part), colour or "dim", columns=self.columns, indent=2)
        ]
        if len(shown) < len(lines):
            out += self._more(len(lines) - len(shown))
        return out

    def _fold_lines(self, rendered: list[str], whole: list[str], most: int = 40) -> list[str]:
        if len(rendered) <= most:
            return rendered
        self.folded = whole
        return [*rendered[:most], *self._more(len(rendered) - most)]

    def _more(self, count: int) -> list[str]:
        words = (
            f"… {count} more lines (Ctrl-O shows all)" if self.style.unicode else f"({count} more)"
        )
        return self.style.text(words, "dim", columns=self.columns, indent=2)

    def _doing(self, words: str) -> None:
        self._activity = Activity(words, time.monotonic())

    def _output(self, text: str) -> None:
        lines = [line for line in visible(text).split("\n") if line.strip()]
        if self._activity is not None and lines:
            self._activity.last = _cut(lines[-1])

    def _space(self) -> list[str]:
        """Set steps apart: an empty line, except right after one."""
        spaced, self._spaced = self._spaced, False
        return [] if spaced else [""]


def _tail(text: str, lines: int) -> str:
    return "\n".join(text.rstrip().split("\n")[-lines:])


def _cut(line: str, most: int = 400) -> str:
    return line if len(line) <= most else line[:most] + "…"
