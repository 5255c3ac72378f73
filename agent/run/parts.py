"""The parts of one open session, wired together: record, tools, conversation, hooks, compaction."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from agent.client import Client
from agent.control.hooks import Hooks
from agent.control.toolbox import Toolbox
from agent.events import CommandOutput, Notice
from agent.loading import LoadedModel
from agent.loop.agents_md import RepositoryNotes
from agent.loop.checked_before import CheckedBefore
from agent.loop.compaction import Compactor
from agent.loop.constrained import ConstrainedCalls
from agent.loop.conversation import Conversation
from agent.loop.diagnostics import Diagnostics
from agent.loop.first_prompt import Beginning
from agent.loop.journal import Journal
from agent.loop.overseer import OverseenTools
from agent.loop.quoting import OfferedFiles
from agent.loop.untried import Tried, Untried
from agent.run.build import sampling_of
from agent.run.mirror import Mirror
from agent.run.offered import offered
from agent.sessions.history import History, history_of
from agent.sessions.prefix_cache import PrefixCache
from agent.sessions.records import Record
from agent.sessions.store import SavedSession
from agent.settings.table import Settings
from agent.types import Step
from model.chat.effort import unknown_effort
from model.session import Session
from sandboxes.base import Sandbox
from sandboxes.stop import Stop
from sandboxes.workspace.workspace import Workspace
from tools.registry import Registry
from tools.types import ToolContext


@dataclass
class Parts:
    """Parts of one open session. ``stop`` is the client's with the turn's deadline.

    ``search`` is what the attempts at one task share, where there are several.
    """

    saved: SavedSession
    settings: Settings
    model: LoadedModel
    client: Client
    sandbox: Sandbox
    stop: Stop
    journal: Journal
    registry: Registry
    conversation: Conversation
    mirror: Mirror | None
    diagnostics: Diagnostics
    search: Untried | None = None

    @classmethod
    def wire(
        cls,
        saved: SavedSession,
        settings: Settings,
        model: LoadedModel,
        client: Client,
        sandbox: Sandbox,
        stack: ExitStack,
        records: Sequence[Record] = (),
        steps: Sequence[Step] = (),
    ) -> Parts:
        """Wire the parts of a claimed session together; ``stack`` takes them down.

        ``records`` and ``steps`` are those that it has. The conversation is empty yet.
        """
        if line := unknown_effort(settings.effort):
            client.listen(Notice(line))
        stop = client.stop.joined()
        workspace = sandbox.workspace
        trajectory = stack.enter_context(saved.writer(records))
        journal = Journal(saved, workspace, trajectory, list(steps), settings.keep_state)
        context = ToolContext(
            sandbox,
            command_timeout_s=settings.command_timeout,
            stop=stop,
            on_output=lambda text: client.listen(CommandOutput(text)),
            task=saved.info.task,
            count_tokens=model.chat.count_tokens,
        )
        # Its parsers are processes.
        stack.callback(context.code.close)
        toolbox = client.tools or Toolbox(profile=settings.tools)
        also = offered(model, toolbox.skills)
        registry = Registry(context, toolbox.tools(client.listen, stop, also=also))
        empty = model.engine.session(seed=saved.info.seed)
        conversation = speak(empty, settings, model, client, registry, stop)
        mirror = None if client.files is None else Mirror(workspace, client.files, trajectory)
        client.approvals.kept_in(saved.path)
        parts = cls(
            saved,
            settings,
            model,
            client,
            sandbox,
            stop,
            journal,
            registry,
            conversation,
            mirror,
            Diagnostics(sandbox, settings.diagnostics, stop),
        )
        stack.callback(lambda: parts.conversation.session.close())
        return parts

    def search_with(self, tried: Tried, attempt: int) -> None:
        """Let the next turns test nothing that is in ``tried``, as number ``attempt``."""
        self.search = Untried(tried, attempt, self.sandbox, self.journal)

    @property
    def workspace(self) -> Workspace:
        """The private copy of the repository."""
        return self.journal.workspace

    @property
    def steps(self) -> list[Step]:
        """The live steps."""
        return self.journal.steps

    @property
    def history(self) -> History:
        """The history that the record adds up to."""
        return history_of(self.journal.trajectory.records)

    @property
    def beginning(self) -> Beginning:
        """Runner of the prompts that begin a context."""
        cache = PrefixCache(self.model.engine, self.settings.warm_cache_mb)
        return Beginning(self.model, cache, self.saved.info.seed)

    def update(self, **fields: object) -> None:
        """Change fields of ``session.json``. Raises ``OSError``."""
        self.saved = self.saved.update(**fields)

    def speaker(self, session: Session | None = None) -> Conversation:
        """Return a conversation about which nothing is known yet, over ``session`` or a new one."""
        session = session or self.model.engine.session(seed=self.saved.info.seed)
        return speak(session, self.settings, self.model, self.client, self.registry, self.stop)

    def tools(self) -> OverseenTools:
        """Return the tools with all that watches over them."""
        overseers = (
            self.hooks(self.stop),
            *((self.mirror,) if self.mirror is not None else ()),
            self.client.approvals,
            RepositoryNotes(self.sandbox, self.steps),
            self.diagnostics,
            CheckedBefore(self.journal, self.saved.info.check),
            OfferedFiles(self.registry.context.seen, self.conversation),
        )
        return OverseenTools(self.registry, overseers)

    def hooks(self, stop: Stop) -> Hooks:
        """Return the user's hooks, which ``stop`` ends."""
        client, saved = self.client, self.saved
        return Hooks(client.hooks, saved.info.repo, saved.id, client.listen, stop)

    def compactor(self) -> Compactor:
        """Return what gives up a full context."""
        return Compactor(
            self.beginning,
            self.journal,
            self.registry,
            self.client,
            self.settings.keep_state,
        )


def speak(
    session: Session,
    settings: Settings,
    model: LoadedModel,
    client: Client,
    registry: Registry,
    stop: Stop,
) -> Conversation:
    """Return a conversation over ``session`` that is spoken as the settings say."""
    return Conversation(
        session,
        model.chat.at_effort(settings.effort),
        registry.schemas(),
        sampling_of(settings, model.engine.generation),
        thinking=settings.thinking != "off",
        listen=client.listen,
        stop=stop,
        constrained=constrained(settings, model, registry),
    )


def constrained(
    settings: Settings, model: LoadedModel, registry: Registry
) -> ConstrainedCalls | None:
    """Return the rules that the settings put on calls, if any."""
    if settings.constrain == "off":
        return None
    files = registry if settings.constrain == "edits" else None
    return ConstrainedCalls(model.chat, registry.schemas(), files)
