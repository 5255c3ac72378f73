"""``agent sessions``: list, show and remove saved sessions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.flags import ListOutput
from agent.cli.help import Commands
from agent.cli.output import Output, write_err, write_json, write_out, write_patch
from agent.text import visible

if TYPE_CHECKING:
    from agent.sessions.records import Record
    from agent.sessions.store import SavedSession
    from agent.types import Step
    from model.messages import Message

TASK_CHARACTERS = 60
BLOCK_LINES = 20
HEADER = ("created", "parent", "repo", "model", "sandbox", "thinking", "seed", "check")
LINE_CHARACTERS = 200
KEPT_DAYS, KEPT_MEGABYTES = 30, 10_000
"""The bounds that ``prune`` keeps to, and ``list`` tells of, unless others are asked for."""


WHICH = "The session's id, how it begins, or its last four characters."

app = Commands(help="Saved sessions.")


@app.command(name="list")
def list_sessions(
    repo: Annotated[
        Path | None,
        typer.Option(
            "--repo",
            "-r",
            metavar="DIR",
            help="Only those on the repository around DIR.",
        ),
    ] = None,
    output: ListOutput = Output.TEXT,
) -> None:
    """List the sessions, oldest first: id, status, steps, age, size and task."""
    from agent.sessions.bounds import age_of, age_text, beyond, size_of, size_text
    from agent.sessions.info import RUNNING
    from agent.sessions.store import SessionStore

    store = SessionStore()
    store.reap()
    found = store.sessions()
    if repo is not None:
        here = repo.resolve()
        found = [session for session in found if here.is_relative_to(session.info.repo)]
    if output is Output.JSON:
        listed = [
            {"id": session.id, **session.info.stored, "size_bytes": size_of(session)}
            for session in found
        ]
        write_json({"sessions": listed})
        return
    if not found:
        write_out(f"no sessions in {store.root}{f' on {repo}' if repo else ''}\n")
    for session in found:
        task = visible(" ".join(session.info.task.split()))[:TASK_CHARACTERS]
        steps = "-" if session.info.steps is None else session.info.steps
        age, size = age_text(age_of(session)), size_text(size_of(session))
        write_out(
            f"{session.id}  {session.status:<14} {steps:>4} steps {age:>7} {size:>9}  {task}\n"
        )
    ended = [session for session in found if session.status != RUNNING]
    if over := len(beyond(ended, KEPT_DAYS, KEPT_MEGABYTES)):
        write_err(
            f"note: {over} of them are past the bounds ({KEPT_DAYS} days, {KEPT_MEGABYTES:,} MB); "
            "agent sessions prune removes them\n"
        )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help=WHICH, metavar="ID")],
    output: ListOutput = Output.TEXT,
) -> None:
    """Show one session: what was asked, each step, and how it ended."""
    from agent.sessions.store import SessionStore
    from agent.sessions.trajectory import read_lines, read_records

    session = SessionStore().find(name)
    there = session.trajectory.exists()
    if output is Output.JSON:
        records = list(read_lines(session.trajectory)) if there else []
        write_json({"id": session.id, **session.info.stored, "records": records})
        return
    _header(session)
    for record in read_records(session.trajectory) if there else ():
        _show(record)


@app.command()
def patch(
    name: Annotated[str, typer.Argument(help=WHICH, metavar="ID")],
    apply: Annotated[
        bool, typer.Option("--apply", help="Apply it to the repository instead of printing it.")
    ] = False,
    repo: Annotated[
        Path | None,
        typer.Option(
            "--repo", "-r", metavar="DIR", help="Where to apply it; default: the session's."
        ),
    ] = None,
) -> None:
    """Print a session's patch: its files after the last step against those it began with.

    However it ended, also if it was killed; whether a check passes with it is not asked.
    """
    from agent.sessions.history import history_of, records_of
    from agent.sessions.moved import locate_repository
    from agent.sessions.store import SessionStore
    from sandboxes.workspace.kept_record import open_record

    session = SessionStore().find(name)
    history = history_of(records_of(session))
    baseline = session.info.baseline
    with open_record(session.files) as files:
        changes = files.patch(baseline, history.tree or baseline)
        if not apply:
            write_patch(changes)
        elif changes:
            place = locate_repository(session, repo)
            files.apply(place, changes)
            write_err(f"applied to {visible(str(place))}\n")
    if not changes:
        write_err(f"session {session.id} has changed nothing\n")


@app.command()
def rm(
    names: Annotated[
        list[str],
        typer.Argument(help="Ids, how they begin, or their last four characters.", metavar="ID..."),
    ],
) -> None:
    """Remove sessions: their record and their saved state."""
    from agent.sessions.store import SessionStore

    store = SessionStore()
    for name in names:
        write_out(f"removed {store.remove(name)}\n")


@app.command()
def prune(
    days: Annotated[
        float, typer.Option("--days", min=0, help="Keep those changed since.")
    ] = KEPT_DAYS,
    megabytes: Annotated[
        float, typer.Option("--megabytes", min=0, help="Keep the newest that fit together.")
    ] = KEPT_MEGABYTES,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove sessions that are too old, or the oldest while all together are too large.

    Running sessions stay.
    """
    from agent.errors import AgentError
    from agent.sessions.bounds import age_of, age_text, beyond, size_of, size_text
    from agent.sessions.info import RUNNING
    from agent.sessions.store import SessionStore

    store = SessionStore()
    store.reap()
    every = [session for session in store.sessions() if session.status != RUNNING]
    gone, done = 0, "would remove" if dry_run else "removed"
    for session in beyond(every, days, megabytes):
        size, age = size_of(session), age_text(age_of(session))
        try:
            if not dry_run:
                store.remove(session.id)
        except AgentError as error:
            write_err(f"note: {visible(str(error))}\n")
            continue
        gone += 1
        write_out(f"{done} {session.id} ({age}, {size_text(size)})\n")
    left = sum(map(size_of, every if dry_run else store.sessions()))
    write_err(
        f"{done} {gone} of {len(every)} sessions that are not running (bounds: {days:g} days, "
        f"{megabytes:,g} MB); {size_text(left)} in {store.root}\n"
    )


def _header(session: SavedSession) -> None:
    info = session.info
    write_out(f"session {session.id}: {session.status}\n")
    if info.attempts:
        write_out(f"attempt:  {info.attempt} of {info.attempts}\n")
    for key in (*HEADER, "summary"):
        if (value := info.stored.get(key)) not in (None, ""):
            write_out(f"{key + ':':<10}{visible(str(value))}\n")
    if info.task:
        write_out(f"\n{visible(info.task)}\n")


def _show(record: Record) -> None:
    from agent.sessions import records as kinds
    from agent.types import Compaction, Step

    match record:
        case Step():
            _step(record)
        case kinds.CheckRecord(when, run):
            write_out(f"\ncheck {when}: exit code {run.exit_code}\n")
        case kinds.PromptRecord(compacted=Compaction(before, after, kept)):
            where = f" (before: session {kept})" if kept else ""
            write_out(f"\ncontext compacted from {before:,} to {after:,} tokens{where}\n")
        case kinds.RewindRecord(to, why):
            write_out(f"\nback to step {to} ({why}): later steps above are void\n")
        case kinds.ResumeRecord():
            write_out(f"\nresumed {record.time} with {visible(record.model)}\n")
            told = record.messages or ()
            if not any(message.role == "system" for message in told):
                _said(told)
        case kinds.WordsRecord(messages):
            _said(messages)
        case kinds.EndRecord(patch=patch) if patch:
            write_out(f"\npatch:\n{visible(patch)}")
        case _:
            pass


def _said(messages: Sequence[Message]) -> None:
    """Show what the user said last; what tools gave is shown with its step."""
    for message in messages[-1:]:
        if message.role == "user":
            write_out(f"\nthe user said:\n{_block(message.content)}")


def _step(step: Step) -> None:
    from agent.sessions.pictures import picture_words

    message = step.message
    write_out(f"\nstep {step.index + 1}\n")
    for text in (message.thinking, message.content):
        if text:
            write_out(_block(text))
    observations = iter(step.observations)
    for call in message.tool_calls:
        arguments = " ".join(f"{key}={value!r}" for key, value in call.arguments.items())
        write_out(_cut(f"  > {visible(call.name)} {visible(arguments)}") + "\n")
        if seen := next(observations, None):
            write_out(_block(seen.text, indent="    "))
            for words in picture_words(seen.pictures):
                write_out(_block(f"[{words}]", indent="    "))


def _block(text: str, *, indent: str = "  ") -> str:
    lines = visible(text).strip("\n").split("\n")
    shown = [_cut(indent + line) for line in lines[:BLOCK_LINES]]
    if len(lines) > BLOCK_LINES:
        shown.append(f"{indent}… {len(lines) - BLOCK_LINES} more lines")
    return "\n".join(shown) + "\n"


def _cut(line: str) -> str:
    """Return at most ``LINE_CHARACTERS`` of a line, which may be a whole file that has no other."""
    more = len(line) - LINE_CHARACTERS
    return line if more <= 0 else f"{line[:LINE_CHARACTERS]}… {more:,} more characters"
