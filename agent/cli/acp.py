"""``agent acp``: the Agent Client Protocol over stdio, for editors."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli.flags import Given, takes
from agent.settings.option import Group


@takes(Group.MODEL, Group.SANDBOX, Group.IMAGE, Group.LIMITS, Group.CONTEXT, Group.SAMPLING)
def acp(
    given: Given,
    mode: Annotated[
        str, typer.Option(metavar="ask|edit|auto|plan", help="What new sessions ask for.")
    ] = "ask",
) -> None:
    """Serve an editor: the Agent Client Protocol over stdin and stdout.

    Not for typing: an editor starts it (docs/editors.md). Logs go to a file in the state folder.
    """
    from agent.acp.server_process import run

    run(given, mode)
