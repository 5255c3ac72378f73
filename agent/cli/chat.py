"""``agent`` and ``agent chat``: talk with the model in this terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.chat.wanted import MODES, Wanted
from agent.cli.flags import Given, Repo, takes
from agent.cli.help import HelpedCommand
from agent.cli.output import at_terminal
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
) -> Wanted:
    """Talk with the model about a repository, in this terminal.

    Your files follow what the model changes; /undo takes a turn back. /help lists the commands.
    """
    if not at_terminal():
        raise ConfigError("a chat needs a terminal; use agent solve for a task from a script")
    if mode not in MODES:
        raise ConfigError(f"there is no mode {mode!r}; use {', '.join(MODES)}")
    if go_on and resume is not None:
        raise ConfigError("--continue and --resume are given together; give one of them")
    return Wanted(repo, given, "" if go_on else resume, mode, prompt.strip())


chat_only = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
"""The chat's command line alone. ``agent.cli.quick_chat`` reads it once the prompt stands."""
chat_only.command(cls=HelpedCommand)(chat)
