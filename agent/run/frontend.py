"""How the user keeps hold of a run: who is asked before calls, and what an interrupt leads to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.control.approvals import Approvals
from agent.control.policy import HookLists
from agent.control.toolbox import Toolbox


@dataclass
class Control:
    """What a caller of ``solve`` or ``resume`` gives a run beside its settings.

    ``words`` is asked once a run was interrupted: the user's words to the model, with which it goes
    on at once, or None for the end. Whoever gives words must also take the interrupt back.
    ``hooks`` are commands of the user's; ``toolbox`` has the tools, with those of MCP servers, and
    is closed by whoever made it.
    """

    approvals: Approvals = field(default_factory=Approvals)
    words: Callable[[], str | None] = lambda: None
    hooks: HookLists = field(default_factory=HookLists)
    toolbox: Toolbox = field(default_factory=Toolbox)
