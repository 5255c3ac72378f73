"""The run as a person sees it: a table that stays in place, or a line for each attempt."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.cli.output import is_terminal, write_err
from agent.events import CallRunning, Event, StepDone
from agent.text import visible
from evals.instance import EXIT_STATUSES, Result
from evals.run.runner import Job

SHOWN_JOBS = 12


class Board:
    """Counts, tokens, their speed, the estimated end, and what each worker is at.

    A ``runner.Watcher`` and a context manager: leaving it takes the table down.
    """

    def __init__(self, total: int, done: int, *, console: Console | None = None) -> None:
        self._total, self._done_before = total, done
        self._console = console or Console(stderr=True, highlight=False)
        self._show = console is not None or is_terminal(sys.stderr)
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._counts: Counter[str] = Counter()
        self._ended = 0
        self._tokens: Counter[str] = Counter()
        self._at: dict[tuple[str, int], tuple[float, int, str]] = {}

    def __enter__(self) -> Self:
        if self._show:
            self._live = Live(
                self.table(), console=self._console, auto_refresh=False, transient=False
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.update(self.table(), refresh=True)
            self._live.stop()

    def begun(self, job: Job) -> None:
        with self._lock:
            self._at[job.instance.id, job.attempt] = (time.monotonic(), 0, "laying out")

    def heard(self, job: Job, event: Event) -> None:
        key = job.instance.id, job.attempt
        with self._lock:
            started, steps, doing = self._at.get(key, (time.monotonic(), 0, ""))
            if isinstance(event, StepDone):
                steps, doing = event.step.index + 1, "thinking"
                self._tokens["generated"] += event.step.usage.generated_tokens
                self._tokens["prefilled"] += event.step.usage.prefilled_tokens
                self._tokens["reused"] += event.step.usage.reused_tokens
            elif isinstance(event, CallRunning):
                doing = event.call.name
            self._at[key] = (started, steps, doing)

    def ended(self, job: Job, result: Result | None) -> None:
        with self._lock:
            self._at.pop((job.instance.id, job.attempt), None)
            if result is not None:
                self._ended += 1
                self._counts[result.exit_status] += 1
                if not self._show:
                    write_err(self._line(result))
        self.looked()

    def looked(self) -> None:
        if self._live is not None:
            self._live.update(self.table(), refresh=True)

    def table(self) -> Table:
        """Draw the table as it is now."""
        with self._lock:
            seconds = max(time.monotonic() - self._started, 1e-9)
            table = Table(show_header=False, box=None, pad_edge=False)
            table.add_column(style="dim")
            table.add_column(overflow="ellipsis", no_wrap=True)
            done = self._done_before + self._ended
            table.add_row("attempts", f"{done} of {self._total}, {len(self._at)} under way")
            counts = [f"{self._counts[name]} {name}" for name in EXIT_STATUSES]
            table.add_row("ended as", ", ".join(counts))
            table.add_row("tokens", self._token_line(seconds))
            table.add_row("time", self._time_line(seconds))
            for (name, attempt), (since, steps, doing) in list(self._at.items())[:SHOWN_JOBS]:
                age = time.monotonic() - since
                line = f"attempt {attempt}, step {steps + 1}, {doing}, {age:.0f} s"
                table.add_row(Text(visible(name)), Text(visible(line)))
        return table

    def _token_line(self, seconds: float) -> str:
        tokens = self._tokens
        return (
            f"{tokens['prefilled']:,} prefilled, {tokens['generated']:,} generated "
            f"({tokens['generated'] / seconds:,.0f}/s), {tokens['reused']:,} reused"
        )

    def _time_line(self, seconds: float) -> str:
        left = self._total - self._done_before - self._ended
        if not self._ended:
            return f"{_span(seconds)} so far"
        rate = self._ended / seconds
        return f"{_span(seconds)} so far, {rate * 60:.1f} a minute, {_span(left / rate)} to go"

    def _line(self, result: Result) -> str:
        done = self._done_before + self._ended
        usage = result.usage
        tokens = usage.get("generated_tokens", 0)
        told = f": {result.summary}" if result.exit_status in ("environment", "error") else ""
        line = (
            f"{done}/{self._total} {result.instance_id} attempt {result.attempt}: "
            f"{result.exit_status} ({result.status}), {result.steps} steps, "
            f"{tokens:g} tokens generated, {result.seconds:.1f} s{told}"
        )
        return visible(line.replace("\n", " ")) + "\n"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
