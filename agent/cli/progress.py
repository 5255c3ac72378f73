"""A run told to a person at a terminal, on stderr: thinking dimmed, calls, what they gave.

To anything that is not a terminal nothing is told; the lines at the end come from the command.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.text import Text

from agent.cli.blocks import (
    arguments_text,
    call_lines,
    complete_blocks,
    result_lines,
    short,
    text_block,
)
from agent.cli.json_events import notice_of
from agent.cli.output import is_terminal
from agent.cli.status import Status, duration
from agent.cli.wrapping import WordWrap
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
    Listener,
    ModelLoaded,
    Notice,
    Prefilled,
    RunEnded,
    RunStarted,
    StepDone,
    ThinkingDelta,
    Working,
    nobody,
)
from agent.text import visible
from agent.types import CheckRun, Step

CHECK_LINES = 12
PREFILL_SHOWN_FROM = 500
BAR_CELLS = 20
MAX_OUTPUT = 2000
DEMO_MODEL = "embedded"
DEMO = (
    "embedded is a small demo model: it repairs one-line bugs in small Python modules and nothing "
    "else. For real work name a checkpoint with --model."
)


def terminal_listener() -> Listener:
    """Return a listener for this process's stderr; ``nobody`` if that is no terminal."""
    if not is_terminal(sys.stderr):
        return nobody
    # Without a colour system rich writes no escape sequence at all.
    plain = "NO_COLOR" in os.environ
    console = Console(stderr=True, highlight=False, color_system=None if plain else "auto")
    progress = Progress(console)
    progress.status.keep_drawing()
    return progress


class Progress:
    """Prints events as they come. Text is never parsed as markup and breaks between words."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.RLock()
        self.status = Status(console, self._lock)
        self._thinking: WordWrap | None = None
        self._content = ""
        self._context_length = 0
        self._prefill_began: float | None = None
        self._output = ""

    def __call__(self, event: Event) -> None:
        """Show one event; those that a reader need not see are passed over."""
        with self._lock:
            if isinstance(event, CommandOutput):
                self._output = (self._output + event.text)[-MAX_OUTPUT:]
                lines = [line for line in self._output.split("\n") if line.strip()]
                self.status.detail(lines[-1].strip() if lines else "")
            elif isinstance(event, Prefilled):
                self._prefilled(event.done, event.total)
            else:
                self.status.end()
                self._prefill_began = None
                self._show(event)

    def _show(self, event: Event) -> None:
        if isinstance(event, ThinkingDelta):
            self._think(event.text)
        elif isinstance(event, ContentDelta):
            self._say(event.text)
        elif isinstance(event, RunStarted):
            self._started(event)
        elif isinstance(event, ModelLoaded):
            self._loaded(event)
        elif isinstance(event, Notice | Compacted):
            self._line(notice_of(event), "yellow")
        elif isinstance(event, CallWriting):
            self._wait(f"writing a call of {event.name}")
        elif isinstance(event, CallPlanned):
            self._block(call_lines(event.call), title=True)
        elif isinstance(event, CallRunning):
            self._output = ""
            self._wait(f"{event.call.name} {arguments_text(event.call.arguments)}")
        elif isinstance(event, CallDone):
            self._block(result_lines(event.call, event.observation))
            self._wait("the model reads the result")
        elif isinstance(event, StepDone):
            self._line(_step_line(event.step, self._context_length), "dim")
            self._print(Text())
            self._wait(_after(event.step))
        elif isinstance(event, CheckDone):
            self._checked(event.when, event.run)
        elif isinstance(event, Working):
            self._wait(event.what)
        elif isinstance(event, FromAttempt):
            self._from_attempt(f"[{event.number}] ", event.event)

    def _from_attempt(self, mark: str, event: Event) -> None:
        """Print a line for each thing that happens in one of several attempts."""
        if isinstance(event, RunStarted):
            self._line(f"{mark}session {event.session}", "bold")
        elif isinstance(event, Notice | Compacted):
            self._line(mark + notice_of(event), "yellow")
        elif isinstance(event, CallPlanned):
            arguments = arguments_text(event.call.arguments)
            self._line(f"{mark}▸ {event.call.name} {arguments}", "cyan")
        elif isinstance(event, CallDone) and not event.observation.ok:
            self._line(f"{mark}  {short(event.observation.text.split(chr(10))[0])}", "red")
        elif isinstance(event, StepDone):
            self._line(mark + _step_line(event.step, self._context_length), "dim")
        elif isinstance(event, CheckDone):
            verdict = "passes" if event.run.passed else "fails"
            self._line(f"{mark}check: {verdict}", "green" if event.run.passed else "red")
        elif isinstance(event, RunEnded):
            self._line(f"{mark}{event.status}", "bold")

    def _started(self, event: RunStarted) -> None:
        attempt = f", attempt {event.attempt} of {event.attempts}" if event.attempts > 1 else ""
        self._line(
            f"session {event.session}: model {event.model}, sandbox {event.sandbox}{attempt}",
            "bold",
        )
        self._print(Text())
        self._wait("preparing: the check, the map of the code, the first prompt")

    def _loaded(self, event: ModelLoaded) -> None:
        self._context_length = event.context_length
        if event.name == DEMO_MODEL:
            self._line(DEMO, "yellow")

    def _prefilled(self, done: int, total: int) -> None:
        """Show how far a long prompt is, at what rate, and how long it will still take."""
        if total < PREFILL_SHOWN_FROM:
            return
        now = self.status.clock()
        if self._prefill_began is None:
            self._close()
            self._prefill_began = now
            self.status.begin("")
        seconds = now - self._prefill_began
        filled = BAR_CELLS * done // total
        bar = "█" * filled + "░" * (BAR_CELLS - filled)
        told = f"the model reads {bar} {done:,} of {total:,} tokens"
        if done >= total:
            self.status.end()
            self._prefill_began = None
            if seconds >= 1:
                rate = total / seconds
                self._line(
                    f"read {total:,} tokens in {duration(seconds)} ({rate:,.0f} tokens/s)", "dim"
                )
            return
        if seconds > 0 and done:
            left = duration((total - done) * seconds / done)
            told += f", {done / seconds:,.0f} tokens/s, {left} left"
        self.status.say(told)

    def _checked(self, when: str, run: CheckRun) -> None:
        verdict = "passes" if run.passed else "fails"
        self._line(f"check {when}: {verdict}", "green" if run.passed else "red")
        if output := run.output.rstrip("\n"):
            lines = output.split("\n")[-CHECK_LINES:]
            self._block(Text(visible(short(line)), style="dim") for line in lines)

    def _think(self, text: str) -> None:
        if self._content:
            self._close()
        if self._thinking is None:
            self._thinking = WordWrap(self._console.width)
        self._flow(self._thinking.push(visible(text)))

    def _say(self, text: str) -> None:
        """Print the blocks of the model's text that are whole; the rest shows as under way."""
        if self._thinking is not None:
            self._close()
        whole, self._content = complete_blocks(self._content + text)
        if whole.strip():
            self._print(text_block(whole))
        if last := self._content.rstrip("\n").rpartition("\n")[2]:
            self.status.begin(last)

    def _flow(self, text: str) -> None:
        if text:
            self._console.print(Text(text, style="dim italic"), end="", soft_wrap=True)

    def _close(self) -> None:
        """End what streams: print what is held of it."""
        if self._thinking is not None:
            self._flow(self._thinking.finish())
            self._console.print()
            self._thinking = None
        if rest := self._content.strip("\n"):
            self._console.print(text_block(rest))
        self._content = ""

    def _wait(self, what: str) -> None:
        if what:
            self._close()
            self.status.begin(what)

    def _line(self, text: str, style: str) -> None:
        self._print(Text(visible(text), style=style))

    def _block(self, lines: Iterable[Text], *, title: bool = False) -> None:
        """Print ``lines`` two columns in; with ``title`` the first is not."""
        for number, line in enumerate(lines):
            if title and number == 0:
                self._print(line)
                continue
            for part in line.wrap(self._console, max(self._console.width - 2, 1)) or [Text()]:
                part.rstrip()
                self._print(Text("  ").append_text(part) if part else Text())

    def _print(self, what: RenderableType) -> None:
        self._close()
        self._console.print(what)


def _after(step: Step) -> str:
    """Return what is under way after ``step``."""
    submitted = any(call.name == "submit" for call in step.message.tool_calls)
    return "the patch and the check" if submitted else "the model reads the results"


def _step_line(step: Step, context_length: int) -> str:
    """Return what the step cost: tokens, how full the context is, and time."""
    usage = step.usage
    line = (
        f"step {step.index + 1}: {usage.prefilled_tokens:,} prefilled, "
        f"{usage.generated_tokens:,} generated, {usage.context_tokens:,} in context"
    )
    if context_length:
        line += f" ({usage.context_tokens / context_length:.0%})"
    seconds = usage.prefill_s + usage.decode_s + usage.tool_s
    return f"{line}, {duration(seconds)}" if seconds >= 1 else line
