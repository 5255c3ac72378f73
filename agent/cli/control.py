"""The client of a run that was started at a command line: rules, hooks, the person there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agent.control.policy import load_policy
from agent.errors import ConfigError
from agent.settings.extensions import own_skills
from sandboxes.paths import config_dir

if TYPE_CHECKING:
    from agent.cli.interrupts import Interrupts
    from agent.client import Client
    from agent.events import Listener
    from agent.settings.table import Settings


@contextmanager
def controlled(
    settings: Settings,
    repo: Path,
    interrupts: Interrupts,
    listen: Listener,
    *,
    interactive: bool | None = None,
) -> Iterator[Client]:
    """Make the client of one run. Without ``interactive`` it is so where calls are asked for.

    Raises ``ConfigError`` if someone is to be asked and there is no terminal.
    """
    from agent.cli.terminal import Terminal
    from agent.client import Client
    from agent.control.approvals import Approvals
    from agent.control.toolbox import Toolbox
    from agent.events import Notice, Working

    policy = load_policy(repo, mcp_from_repo=settings.mcp_from_repo)
    for line in policy.notices:
        listen(Notice(line))
    if interactive is None:
        interactive = settings.approve != "never"
    terminal = Terminal.open(interrupts)
    if terminal is None:
        if settings.approve != "never":
            raise ConfigError(
                f"--approve {settings.approve} asks at a terminal, and there is none; give "
                "--approve never, and deny by rules what must not run"
            )
        if interactive:
            raise ConfigError("--interactive asks at a terminal, and there is none; leave it out")

    def words() -> str | None:
        if terminal is None or not interactive or not interrupts.by_person:
            return None
        listen(Working(""))  # a question is no place for what is under way
        said = terminal.words()
        if said is not None:
            interrupts.clear()
        return said

    toolbox = Toolbox(policy.servers, settings.tools, skills=own_skills(config_dir()))
    try:
        approvals = Approvals(settings.approve, terminal, policy.rules)
        yield Client(listen, interrupts, approvals, words, policy.hooks, toolbox)
    finally:
        toolbox.close()
        if terminal is not None:
            terminal.close()
