"""``agent resume``, ``agent fork`` and ``agent rewind``: going on with saved sessions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.control import controlled
from agent.cli.failure import tell
from agent.cli.flags import Apply, Given, Interactive, ResultOutput, takes
from agent.cli.interrupts import Interrupts
from agent.cli.output import Output, write_json, write_out
from agent.cli.printing import finish, listener, load_told, print_error, write_notices
from agent.cli.typed_text import read_text
from agent.errors import AgentError, ConfigError, SessionNotFound
from agent.settings.option import Group

if TYPE_CHECKING:
    from agent.events import Listener
    from agent.loading import LoadedModel
    from agent.sessions.store import SavedSession, SessionStore
    from agent.settings.table import Settings

RUNS = (*(group for group in Group if group is not Group.IMAGE), "image")
WHICH = "The session's id, how it begins, or its last four characters."
Name = Annotated[str, typer.Argument(help=WHICH, metavar="ID")]
Text = Annotated[
    str | None,
    typer.Argument(help="What to tell the model; - reads it from stdin.", metavar="[MESSAGE | -]"),
]
Moved = Annotated[
    Path | None,
    typer.Option(
        "--repo", "-r", metavar="DIR", help="Where the repository lies now, if it was moved."
    ),
]


@takes(*RUNS, but=("n",), stored=True)
def resume(
    given: Given,
    name: Annotated[
        str | None, typer.Argument(help=f"{WHICH} Default: as --last.", metavar="[ID]")
    ] = None,
    message: Text = None,
    last: Annotated[
        bool, typer.Option("--last", "-l", help="The newest session on this repository.")
    ] = False,
    repo: Moved = None,
    apply: Apply = False,
    output: ResultOutput = Output.TEXT,
    interactive: Interactive = None,
) -> None:
    """Go on with a session, in a fresh sandbox with the files of its last complete step.

    Without a message a session that was stopped goes on as if it had not been. What is not given
    as a flag is as it was. Exit codes and output as for solve.

    Examples:
      agent resume
      agent resume --last "now add a test" --max-steps 20
      agent resume 20261128-0915 - --repo ~/project-moved < message.txt
    """
    if last:
        if message is not None:
            raise ConfigError("--last names the session: give a message alone, not an id too")
        name, message = None, name
    code = run(name, message, given, repo=repo, apply=apply, output=output, interactive=interactive)
    raise typer.Exit(code)


@takes(*RUNS, but=("n",), stored=True)
def fork(
    given: Given,
    name: Name,
    message: Text = None,
    repo: Moved = None,
    apply: Apply = False,
    output: ResultOutput = Output.TEXT,
    interactive: Interactive = None,
) -> None:
    """Make a new session with the conversation, state and files of another.

    With a message it goes on at once, as with resume; without one its id is printed.
    """
    if message is None and (given or apply or interactive is not None):
        raise ConfigError("without a message nothing runs: give these flags to agent resume")
    code = run(
        name,
        message,
        given,
        repo=repo,
        apply=apply,
        output=output,
        interactive=interactive,
        copy=True,
    )
    raise typer.Exit(code)


@takes(Group.MODEL, stored=True)
def rewind(
    given: Given,
    name: Name,
    to: Annotated[
        int, typer.Option("--to", help="The step to go back to the end of; 0: before the first.")
    ],
) -> None:
    """Take a session back: conversation, model state and files together.

    What came after the step stays readable in its trajectory.
    """
    from agent.client import Client
    from agent.loading import load_for
    from agent.run.stored_settings import stored_settings
    from agent.sessions.store import SessionStore

    saved = SessionStore().find(name)
    stored = stored_settings(saved, given)
    # torch comes in with this: what can be wrong without it is known by now.
    from agent.run.rewind import rewind as go_back

    loaded = load_for(stored)
    notices: list[str] = []
    cost = go_back(saved, to, loaded, Client(listener(Output.TEXT, notices)))
    write_notices(notices)
    paid = f"{cost:,} tokens prefilled" if cost else "nothing prefilled"
    write_out(f"session {saved.id} is at step {to} ({paid}); go on with agent resume {saved.id}\n")


def run(
    name: str | None,
    message: str | None,
    flags: Mapping[str, Any],
    *,
    repo: Path | None = None,
    apply: bool = False,
    output: Output = Output.TEXT,
    interactive: bool | None = None,
    copy: bool = False,
    model: LoadedModel | None = None,
) -> int:
    """Run a command with its flags read; return the exit code. Without ``model`` it loads one.

    Without ``name`` it is the newest session on the repository around the current folder.
    Whatever goes wrong is one line on stderr and, with a JSON output, also one object of the usual
    keys with status ``error`` (or ``interrupted``).
    """
    names: dict[str, str | None] = {"model": flags.get("model"), "sandbox": flags.get("sandbox")}
    notices: list[str] = []
    try:
        with Interrupts() as interrupts, ExitStack() as stack:
            with interrupts.immediate():
                if message is not None:
                    message = read_text(message, "message")
                saved = _found(name, repo)
                settings, check, seed = _settings(saved, flags)
                # torch comes in with these: what can be wrong without it is known by now.
                from agent.events import Working
                from agent.run import resume as resuming
                from agent.run.build import prepare
                from agent.run.rewind import fork as make_copy
                from agent.sessions.store import SessionStore

                store = SessionStore()
                names = {"model": settings.model, "sandbox": settings.sandbox}
                if copy:
                    saved = make_copy(store, saved)
                    if message is None:
                        return _print_copy(saved, output)
                    stack.callback(_unless_begun, store, saved, _recorded(saved))
                listen = listener(output, notices)
                stack.callback(listen, Working(""))
                saved = _brought_to(saved, repo, listen)
                repo, place = saved.info.repo, saved.info.place
                client = stack.enter_context(
                    controlled(settings, place, interrupts, listen, interactive=interactive)
                )
                settings = prepare(settings, store=store, listen=listen)
                model = load_told(settings, listen, model)
            listen(Working("restoring the files and the model's state"))
            report = resuming.resume(
                saved, message, settings, model, client, check=check, seed=seed, apply=apply
            )
            return finish(report, repo, output, apply=apply, notices=notices)
    except (Exception, KeyboardInterrupt) as error:
        failure = tell(error)
        if output is not Output.TEXT:
            print_error(failure.message, failure.exit_code, names, output, notices)
        return failure.exit_code


def _settings(
    saved: SavedSession, flags: Mapping[str, Any]
) -> tuple[Settings, str | None, int | None]:
    """Return the settings with ``flags`` over the session's, and its new check and seed.

    Those two are not kept as they are: a check is replaced, and a seed draws anew from here on.
    """
    from agent.run.stored_settings import stored_settings

    asked = dict(flags)
    check, seed = asked.pop("check", None), asked.pop("seed", None)
    return stored_settings(saved, asked), check, seed


def _found(name: str | None, repo: Path | None) -> SavedSession:
    """Return the session that is meant; raise ``StoreError`` if another process has it."""
    from agent.sessions.store import SessionStore

    store = SessionStore()
    try:
        saved = store.newest(repo or Path.cwd()) if name is None else store.find(name)
    except SessionNotFound as error:
        if name is None:
            raise ConfigError(str(error)) from error
        raise
    with saved.claim():
        return saved


def _brought_to(saved: SavedSession, given: Path | None, listen: Listener) -> SavedSession:
    """Write down where the repository of ``saved`` lies now, if it was moved."""
    from agent.events import Notice
    from agent.sessions.moved import locate_repository

    repo = locate_repository(saved, given)
    with saved.claim() as held:
        if repo == held.info.repo:
            return held
        listen(Notice(f"the repository was at {held.info.repo}; it is now {repo}"))
        return held.update(repo=repo)


def _recorded(saved: SavedSession) -> int:
    """Return the length of the record of ``saved`` in bytes."""
    return saved.trajectory.stat().st_size if saved.trajectory.exists() else 0


def _unless_begun(store: SessionStore, copy: SavedSession, recorded: int) -> None:
    """Remove a copy whose run never began: its record is still the one it was made with."""
    with suppress(AgentError, OSError):
        if _recorded(copy) == recorded:
            store.remove(copy.id)


def _print_copy(saved: SavedSession, output: Output) -> int:
    if output is Output.TEXT:
        write_out(f"{saved.id}\n")
    else:
        write_json({"session": saved.id, "parent": saved.info.parent, "status": saved.status})
    return 0
