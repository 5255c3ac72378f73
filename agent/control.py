"""How the user keeps hold of a run: who is asked before calls, and what an interrupt leads to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.approval import Approvals
from agent.oversight import Overseer


@dataclass
class Control:
    """What a caller of ``solve`` or ``resume`` gives a run beside its settings.

    ``words`` is asked once a run was interrupted: the user's words to the model, with which it goes
    on at once, or None for the end. Whoever gives words must also take the interrupt back.
    """

    approvals: Approvals = field(default_factory=Approvals)
    words: Callable[[], str | None] = lambda: None

    def overseers(self) -> tuple[Overseer, ...]:
        """Those who watch over the calls, in the order in which they are asked."""
        return (self.approvals,)
