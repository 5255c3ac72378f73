"""The session behind the chat: opened, spoken to, and closed on the session's thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from agent.chat.approver import ChatApprover
from agent.chat.footer import Facts
from agent.chat.front import Front
from agent.chat.markdown_export import conversation_as_markdown
from agent.chat.paste import Pastes
from agent.chat.shown import pictures_in
from agent.chat.wanted import Wanted
from agent.client import Client, OnDisk
from agent.control.approvals import Approvals, Mode
from agent.control.policy import load_policy
from agent.control.toolbox import Toolbox
from agent.errors import ConfigError
from agent.events import CallDone, CallRunning
from agent.loading import LoadedModel, load_for
from agent.run.build import prepare
from agent.run.open_session import OpenSession
from agent.run.report import summary_of
from agent.run.resume import stored_settings
from agent.run.standing import stand
from agent.run.tries import Try, try_turn
from agent.sessions.store import SavedSession, SessionStore
from agent.settings.extensions import own_skills
from agent.settings.load import check_settings, load_settings
from agent.types import Failed, Interrupted, LimitReached, Task
from model.errors import PictureError
from model.messages import ToolCall
from sandboxes.paths import config_dir
from sandboxes.workspace.users_repository import branch_of

ASKED: Mapping[str, Mode] = {"ask": "all", "edit": "commands", "auto": "never", "plan": "plan"}
DEMONSTRATION = (
    "this is the built-in demonstration model: it repairs one-line bugs in small Python functions "
    "and nothing else; --model NAME takes a real one"
)


class ChatSession:
    """One open session at a time. ``cancel`` and ``set_mode`` may be called from any thread."""

    def __init__(self, wanted: Wanted, front: Front) -> None:
        """Read the settings and rules. Raises ``ConfigError``, ``WorkspaceError``."""
        self.wanted = wanted
        self.store = SessionStore()
        self.settings = load_settings(wanted.flags, wanted.repo)
        self.top, self.folder = stand(wanted.repo, self.settings)
        self.policy = load_policy(wanted.repo, mcp_from_repo=self.settings.mcp_from_repo)
        self.client = Client(front.tell, files=OnDisk, talks=True)
        self.approver = ChatApprover(self.client.stop, front)
        rules = self.policy.rules
        self.client.approvals = Approvals(ASKED[wanted.mode], self.approver, rules)
        self.client.hooks = self.policy.hooks
        self._toolbox = Toolbox(self.policy.servers, skills=own_skills(config_dir()))
        self.client.tools = self._toolbox
        self._model: LoadedModel | None = None
        self._session: OpenSession | None = None
        self._id = ""
        self._ran: list[str] = []
        self.tries: list[Try] = []

    @property
    def session(self) -> OpenSession:
        """The open session, opened again if it broke. Raises what opening raises."""
        session = self._session
        if session is None or session.broken:
            self._shut()
            # A session in which nobody spoke is not kept: another new one takes its place.
            session = self._opened(self.store.get(self._id) if self._id else None)
        return session

    def open(self) -> list[str]:
        """Open the session that was asked for; return the lines to tell."""
        self.settings = prepare(
            self.settings, repo=self.top, store=self.store, listen=self.client.listen
        )
        session = self.begin(self.wanted.resume)
        told = list(self.policy.notices)
        if session.steps:
            told.append(f"going on with session {session.id} after step {len(session.steps)}")
        if self.settings.model == "embedded":
            told.append(DEMONSTRATION)
        return told

    def begin(self, resume: str | None) -> OpenSession:
        """Close this session and begin another: saved (an id, "" for the newest), or new.

        Raises ``ConfigError``, ``StoreError``; if there is no such session this one goes on.
        """
        saved = None if resume is None else self._saved(resume)
        self._shut()
        self._id = ""
        if saved is not None:
            stored = stored_settings(saved, self.wanted.flags)
            if stored.model != self.settings.model:
                self._model = None
            self.settings = stored
        return self._opened(saved)

    def use_model(self, name: str) -> OpenSession:
        """Go on with another checkpoint. Raises ``ModelError``; then nothing has changed."""
        changed = {**self.settings.model_dump(), "model": name}
        settings = check_settings(changed, [("/model", {"model": name})])
        model = load_for(settings)
        self._shut()
        self.settings, self._model = settings, model
        return self.session

    def turn(self, text: str, pastes: Pastes | None = None) -> str:
        """Run one user turn; return a remark on how it ended, or an empty text.

        ``pastes`` holds the pasted pictures that ``text`` names.
        """
        self.client.stop.clear()
        try:
            pictures = pictures_in(text, self.session.saved.info.repo)
            pictures += pastes.pictures(text) if pastes is not None else ()
        except PictureError as error:
            return str(error)
        ran, self._ran = self._ran, []
        report = self.session.turn("\n\n".join([*ran, text]), pictures)
        match report.result.outcome:
            case Failed(reason=reason):
                return f"the turn could not go on: {reason}"
            case LimitReached():
                return summary_of(report.result)
            case Interrupted():
                return "stopped; what was done is kept"
            case _:
                return ""

    def shell(self, command: str) -> str:
        """Run the user's own command in the sandbox; the model hears of it with the next turn."""
        self.client.stop.clear()
        call = ToolCall("run_shell_command", {"command": command})
        self.client.listen(CallRunning(call))
        seen = self.session.registry.run(call.name, call.arguments)
        self.client.listen(CallDone(call, seen))
        self._ran.append(f"I ran `{command}`:\n\n{seen.text}")
        return ""

    def aside(self, question: str) -> tuple[str, int]:
        """Return the answer to a side question, and the tokens that were not computed again."""
        self.client.stop.clear()
        session = self.session
        return session.aside(question), session.used

    def attempt(self, text: str, count: int) -> list[Try]:
        """Answer ``text`` in ``count`` forks at once; nothing changes until one is taken."""
        self.client.stop.clear()
        ran = self._ran
        self.tries = try_turn(self.session, "\n\n".join([*ran, text]), count, self.store)
        return self.tries

    def take(self, chosen: Try) -> OpenSession:
        """Put what a try changed into the user's files, and go on with its session.

        Raises ``SandboxError`` if a file was changed so that it does not fit; then nothing changes.
        """
        session = self.session
        if chosen.patch:
            session.parts.workspace.apply_to(session.saved.info.repo, chosen.patch)
        self.tries, self._ran = [], []
        return self.begin(chosen.session)

    def cancel(self) -> None:
        """End the turn under way at the next token."""
        self.client.stop.cancel()

    def set_mode(self, mode: str) -> None:
        """Change what is asked for from now on, also in a running turn."""
        self.client.approvals.mode = ASKED[mode]

    def facts(self, facts: Facts) -> Facts:
        """Return ``facts`` with what is known of the open session."""
        session = self._session
        if session is None:
            return facts
        engine = session.model.engine
        return replace(
            facts,
            model=engine.name,
            used=session.used,
            size=engine.context_length,
            sandbox=self.settings.sandbox,
            device=engine.placement.device if engine.placement is not None else "",
            branch=branch_of(self.wanted.repo),
        )

    def export(self, path: Path) -> str:
        """Write the conversation as Markdown to a new file; return a remark. Raises ``OSError``."""
        session = self.session
        text = conversation_as_markdown(session.id, session.steps)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError as error:
            raise ConfigError(f"{path} exists already; give another name") from error
        return f"written to {path}"

    def saved_here(self) -> list[SavedSession]:
        """Return the saved sessions of this repository, the newest first."""
        return [s for s in self.store.sessions() if s.info.repo == self.top and s.info.task]

    def farewell(self) -> list[str]:
        """Return the lines to end with: how to go on."""
        return [f"go on with: agent --resume {self._id}"] if self._id else []

    def close(self) -> None:
        """Close the session; what was said is saved."""
        self._shut()
        self._toolbox.close()

    def _saved(self, name: str) -> SavedSession:
        if name:
            return self.store.find(name)
        if found := self.saved_here():
            return found[0]
        raise ConfigError(f"there is no saved session of {self.top}; begin one with agent")

    def _opened(self, saved: SavedSession | None) -> OpenSession:
        if self._model is None:
            self._model = load_for(self.settings)
        model, client = self._model, self.client
        if saved is None:
            task = Task("", self.top, self.settings.check, folder=self.folder)
            session = OpenSession.new(task, self.settings, model, client, store=self.store)
        else:
            session = OpenSession.reopen(saved, self.settings, model, client)
            session.load()
        self._id, self._session = session.id, session
        return session

    def _shut(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()
