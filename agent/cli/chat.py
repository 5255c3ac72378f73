"""``agent`` and ``agent chat``: talk with the model in this terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.flags import Given, Repo, takes
from agent.cli.output import is_terminal
from agent.errors import ConfigError
from agent.settings.option import Group


@takes(Group.MODEL, Group.SANDBOX, Group.IMAGE, Group.LIMITS, Group.CONTEXT, Group.SAMPLING)
def chat(
    given: Given,
    repo: Repo = Path(),
    prompt: Annotated[str, typer.Argument(help="Your first message.")] = "",
    go_on: Annotated[
        bool, typer.Option("--continue", "-c", help="Go on with the newest session here.")
    ] = False,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="ID", help="Go on with a saved session.")
    ] = None,
    mode: Annotated[
        str, typer.Option(metavar="ask|edit|auto|plan", help="What is asked for before it runs.")
    ] = "ask",
    plain: Annotated[
        bool, typer.Option("--plain", help="No colours, no marks: for screen readers.")
    ] = False,
) -> None:
    """Talk with the model about a repository, in this terminal.

    Your files follow what the model changes; /undo takes a turn back. /help lists the commands.
    """
    from agent.chat.chat import chat as run
    from agent.chat.wanted import MODES, Wanted
    from sandboxes.paths import config_dir, private_dir, state_dir

    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        raise ConfigError("a chat needs a terminal; use agent solve for a task from a script")
    if mode not in MODES:
        raise ConfigError(f"there is no mode {mode!r}; use {', '.join(MODES)}")
    if go_on and resume is not None:
        raise ConfigError("--continue and --resume are given together; give one of them")
    wanted = Wanted(repo, given, "" if go_on else resume, mode)
    history = private_dir(state_dir()) / "chat_history"
    code = run(wanted, prompt.strip(), plain=plain, history=history, own=config_dir())
    raise typer.Exit(code)
