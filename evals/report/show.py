"""``agent eval report`` and ``agent trace``: runs and sessions on a terminal, as JSON, as HTML."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.cli.output import is_terminal, write_err, write_json, write_out
from agent.sessions.pictures import picture_words
from agent.sessions.store import SessionStore
from agent.text import visible
from agent.types import Step
from evals.errors import RunError, RunNotFound
from evals.report.page import run_page, trace_page
from evals.report.summary import (
    Summary,
    compare_runs,
    comparison_lines,
    median,
    rate_line,
    summarize,
)
from evals.report.trace import Trace, TraceCheck, TraceEnd, TracePrompt, read_trace
from evals.run.folder import RunFolder


@dataclass(frozen=True)
class ReportOptions:
    """The flags of ``agent eval report``."""

    folder: Path
    against: Path | None = None
    html: Path | None = None
    json: bool = False
    traces: bool = True


def report(options: ReportOptions) -> int:
    """Tell what a run came to; returns the exit code."""
    folder = RunFolder(options.folder)
    summary = summarize(folder)
    other = summarize(RunFolder(options.against)) if options.against is not None else None
    comparison = None if other is None else compare_runs(summary, other)
    if options.html is not None:
        traces = traces_of(folder, summary) if options.traces else {}
        _write(options.html, run_page(summary, traces, other, comparison))
    if options.json:
        data = summary.as_dict()
        if comparison is not None and other is not None:
            data["against"] = {"run": other.name, **vars(comparison)}
        write_json(data)
        return 0
    _print(_table(summary))
    lines = [rate_line(f"pass@{k}", value) for k, value in summary.pass_at.items()]
    lines += [rate_line(f"pass^{k}", value) for k, value in summary.pass_all.items() if k > 1]
    if (mean := summary.mean_reward) is not None:
        lines.append(rate_line("mean reward", mean))
    lines.append(_cost_line(summary))
    if left_out := summary.left_out:
        lines.append(left_out)
    if comparison is not None and other is not None:
        lines += comparison_lines(comparison, summary.name, other.name)
    write_out("".join(visible(line) + "\n" for line in lines))
    return 0


def traces_of(folder: RunFolder, summary: Summary) -> Mapping[tuple[str, int], Trace]:
    """Return the trace of every attempt that has one."""
    found = {}
    for attempt in summary.attempts:
        key = attempt.result.instance_id, attempt.result.attempt
        path = folder.attempt(*key) / "trajectory.jsonl"
        if path.is_file():
            found[key] = read_trace(path)
    return found


def trace(name: str, html: Path | None, run: Path | None) -> int:
    """Render one session: of the store, or of an attempt (``ID`` or ``ID/N``) of a run."""
    if run is not None:
        instance, _, number = name.partition("/")
        path = RunFolder(run).attempt(instance, int(number) if number.isdigit() else 1)
        path = path / "trajectory.jsonl"
        if not RunFolder(run).about():
            raise RunNotFound(f"{run} is no folder of a run: it has no run.json")
        if not path.is_file():
            raise RunError(f"{run} has no attempt {name!r} with a trajectory")
        title = name
    else:
        saved = SessionStore().find(name)
        path, title = saved.trajectory, saved.id
    found = read_trace(path)
    if html is not None:
        _write(html, trace_page(f"Session {title}", found))
        return 0
    write_out("".join(visible(line) + "\n" for line in trace_lines(found)))
    return 0


def trace_lines(found: Trace) -> list[str]:
    """Return a session as lines of text."""
    lines: list[str] = []
    for entry in found.entries:
        if isinstance(entry, TracePrompt):
            for message in entry.messages:
                lines += [f"## {message.role}", message.content, ""]
        elif isinstance(entry, Step):
            lines += _step_lines(entry)
        elif isinstance(entry, TraceCheck):
            lines += [f"## check {entry.when}: exit code {entry.exit_code}", entry.output, ""]
        elif isinstance(entry, TraceEnd):
            lines += [f"## {entry.status}", entry.summary, entry.patch]
    return lines


def _step_lines(step: Step) -> list[str]:
    usage = step.usage
    before = usage.context_tokens - usage.prefilled_tokens - usage.generated_tokens
    head = (
        f"## step {step.index + 1}: {max(0, before):,} reused, {usage.prefilled_tokens:,} "
        f"prefilled, {usage.generated_tokens:,} generated, {usage.thinking_tokens:,} of them "
        f"thinking; {usage.prefill_s:.2f} s prefill, "
        f"{usage.decode_s:.2f} s decode, {usage.tool_s:.2f} s tools"
    )
    lines = [head]
    if step.message.thinking:
        lines += ["# thinking", step.message.thinking]
    if step.message.content:
        lines += ["# text", step.message.content]
    for number, call in enumerate(step.message.tool_calls):
        lines.append(f"# call {call.name} {json.dumps(dict(call.arguments), ensure_ascii=False)}")
        if call.error:
            lines.append(call.error)
        if number < len(step.observations):
            seen = step.observations[number]
            pictures = [f"[{words}]" for words in picture_words(seen.pictures)]
            lines += ["# result", seen.text, *pictures]
    return [*lines, ""]


def _table(summary: Summary) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("instance", "outcome", "ended"):
        table.add_column(name, overflow="fold")
    for name in ("steps", "prefilled", "generated", "reused", "prefill s", "decode s", "tools s"):
        table.add_column(name, justify="right")
    for attempt in summary.attempts:
        result = attempt.result
        number = f" #{result.attempt}" if result.attempt > 1 else ""
        usage = result.usage
        cells = [f"{result.instance_id}{number}", attempt.outcome, result.status, str(result.steps)]
        cells += [
            f"{usage.get(f'{name}_tokens', 0):,.0f}"
            for name in ("prefilled", "generated", "reused")
        ]
        cells += [f"{usage.get(n, 0):.1f}" for n in ("prefill_s", "decode_s", "tool_s")]
        table.add_row(*(Text(visible(cell)) for cell in cells))
    return table


def _cost_line(summary: Summary) -> str:
    results = [attempt.result for attempt in summary.attempts]
    generated = [result.usage.get("generated_tokens", 0) for result in results]
    return (
        f"{summary.total('prefilled_tokens'):,.0f} tokens prefilled, {sum(generated):,.0f} "
        f"generated (median {median(generated):,.0f} an attempt), "
        f"{summary.total('reused_tokens'):,.0f} reused; median "
        f"{median([result.seconds for result in results]):.1f} s an attempt"
    )


def _print(table: Any) -> None:
    # In a file or a pipe nothing is to be folded.
    width = None if is_terminal(sys.stdout) else 200
    console = Console(highlight=False, width=width)
    with console.capture() as captured:
        console.print(table)
    write_out(captured.get())


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error
    write_err(f"{visible(str(path))}: {len(text):,} characters\n")
