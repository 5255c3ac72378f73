"""Output of ``solve``, ``resume`` and ``fork`` while they run and at the end."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.output import Output, is_terminal, write_err, write_json, write_patch
from agent.text import visible

if TYPE_CHECKING:
    from agent.events import Listener
    from agent.loading import LoadedModel
    from agent.settings.table import Settings
    from agent.types import SolveReport


def listener(output: Output, notices: list[str]) -> Listener:
    """Return a listener: progress for a terminal on stderr and, if asked for, events on stdout.

    What is worth knowing also when nobody watches goes into ``notices``.
    """
    from agent.cli.json_events import event_as_json, notice_of
    from agent.cli.progress import terminal_listener

    show = terminal_listener()

    def listen(event: Any) -> None:
        show(event)
        if text := notice_of(event):
            notices.append(text)
        if output is Output.STREAM_JSON and (line := event_as_json(event)) is not None:
            write_json(line)

    return listen


def load_told(settings: Settings, listen: Listener, model: LoadedModel | None) -> LoadedModel:
    """Load the checkpoint of ``settings``, or take ``model``, and tell ``listen`` of it."""
    from agent.events import ModelLoaded, Working
    from agent.loading import load_for

    rounding = "" if settings.quantize == "none" else f" and rounding it to {settings.quantize}"
    listen(Working(f"loading {settings.model}{rounding}"))
    model = model or load_for(settings)
    listen(ModelLoaded(model.engine.name, model.engine.context_length))
    return model


def write_notices(notices: Sequence[str]) -> None:
    """Write them to stderr, unless that is a terminal, where they were shown as they came."""
    if not is_terminal(sys.stderr):
        write_err("".join(f"note: {visible(' '.join(text.split()))}\n" for text in notices))


def finish(
    report: SolveReport, repo: Path, output: Output, *, apply: bool, notices: Sequence[str]
) -> int:
    """Apply the patch if asked, print the result, return the exit code."""
    from agent.run.report import as_json, attempts_line, check_line, doubt_line, usage_line

    data = as_json(report, notices)
    if output is Output.JSON:
        write_json(data)
    elif output is Output.STREAM_JSON:
        write_json({"event": "result"} | data)
    else:
        write_patch(report.patch)
    write_notices(notices)
    lines = [how_it_ended(data)]
    if report.check is not None:
        lines.append(check_line(report.check))
    lines.append(doubt_line(report))
    if report.attempts:
        lines.append(attempts_line(report.attempts, report.session))
    if apply and report.patch:
        lines.append(f"applied to {repo}" if report.applied else _not_applied(data))
    lines += [usage_line(report.result.usage, len(report.result.steps))]
    lines.append(f"session {report.session}")
    if data["status"] == "interrupted":
        lines.append(f"go on with: agent resume {report.session}")
    write_err("".join(visible(line.replace("\n", " ")) + "\n" for line in lines if line))
    return int(data["exit_status"])


def how_it_ended(data: Mapping[str, Any]) -> str:
    """Return the status and why; the model's own words are marked where they may be wrong."""
    said = data["summary"].removeprefix(f"{data['status']}; ")
    why = {
        "no_patch": "no file was changed",
        "check_failed": "the check fails with the patch",
    }.get(data["status"])
    if why and said:
        said = f"the model says: {said}"
    return ": ".join([data["status"], "; ".join(part for part in (why, said) if part)]).strip(": ")


def _not_applied(data: Mapping[str, Any]) -> str:
    """Return why a patch that was to be applied was not, and how to have it all the same."""
    if data["status"] == "failed":
        return "not applied"  # the line above says why
    way = f"agent sessions patch {data['session']} --apply"
    return f"not applied, since the run ended with exit code {data['exit_status']}; {way} does it"


def print_error(
    message: str,
    exit_code: int,
    names: Mapping[str, str | None],
    output: Output,
    notices: Sequence[str] = (),
) -> None:
    """Print the object that says why a run could not begin."""
    from agent.run.report import error_as_json

    data = error_as_json(
        message, exit_code, model=names["model"], sandbox=names["sandbox"], notices=notices
    )
    # What went wrong may be that stdout takes no more; that has been told.
    with suppress(OSError):
        write_json(data if output is Output.JSON else {"event": "result"} | data)
