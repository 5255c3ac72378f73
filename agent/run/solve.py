"""Work on one task in a repository: a patch out."""

from __future__ import annotations

from agent.client import Client
from agent.errors import ConfigError
from agent.loading import LoadedModel
from agent.run.attempts import solve_best_of
from agent.run.build import sampling_of, with_image
from agent.run.open_session import OpenSession
from agent.run.scope import refuse_outside
from agent.sessions.store import SessionStore
from agent.settings.table import Settings
from agent.types import SolveReport, Task


def solve(
    task: Task,
    settings: Settings,
    model: LoadedModel,
    client: Client | None = None,
    *,
    store: SessionStore | None = None,
    apply: bool = False,
) -> SolveReport:
    """Work on ``task`` until a patch is submitted, a limit is reached, or it cannot go on.

    With ``settings.n`` above 1 there are that many attempts at once (``agent.run.attempts``). The
    user's repository is only read unless ``apply`` asks that a patch that ends with exit code 0 be
    put there. Without ``client`` nobody listens, and no call is asked for. Raises ``ConfigError``,
    ``StoreError``, ``SandboxError`` when a run cannot begin, also where the task is outside of what
    a narrow model does (``agent.run.scope``).
    """
    if settings.n > 1 and task.check is None:
        raise ConfigError("--n above 1 needs --check: it decides which attempt wins")
    if settings.n > 1 and sampling_of(settings, model.engine.generation).temperature == 0:
        raise ConfigError("--n above 1 needs a temperature above 0: greedy attempts are all equal")
    client, store = client or Client(), store or SessionStore()
    settings = with_image(settings, client.listen, task.repo)
    if settings.n > 1:
        return solve_best_of(task, settings, model, client, store=store, apply=apply)
    with OpenSession.new(task, settings, model, client, store=store) as session:
        session.announce()
        session.check_first()
        refuse_outside(session)
        return session.turn(apply=apply)
