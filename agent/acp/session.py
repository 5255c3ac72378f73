"""One session of an editor: a thread of its own, and what the person chose for it.

All that touches the live session runs on the session's thread, one thing after the other: opening
it, turns, commands, closing. The event loop only starts these, waits, and asks the client things.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from acp.exceptions import RequestError
from acp.schema import ConfigOptionUpdate, CurrentModeUpdate, SessionInfoUpdate

from agent.acp.calls import Places
from agent.acp.content import EditorPrompt
from agent.acp.files import EditorFiles
from agent.acp.hub import Hub
from agent.acp.options import ASKED, Mode, Option, mode_named, options
from agent.acp.outbox import Outbox
from agent.acp.permission import Permission
from agent.acp.replay import replay
from agent.acp.slash import Command, available, command_in, run_command
from agent.acp.updates import Updates, message, thought, usage
from agent.client import Client
from agent.control.approvals import Approvals
from agent.control.policy import Policy
from agent.control.toolbox import Toolbox
from agent.errors import ConfigError
from agent.run.open_session import OpenSession
from agent.run.report import status_of, summary_of
from agent.run.thinking_change import set_effort, set_thinking
from agent.sessions.history import records_of
from agent.sessions.store import SavedSession
from agent.settings.extensions import find_extensions, own_skills
from agent.settings.load import check_settings
from agent.settings.table import Settings
from agent.types import Failed, Interrupted, LimitReached, SolveReport, Task
from sandboxes.paths import config_dir
from tools.mcp.spec import McpServer

_log = logging.getLogger(__name__)

ANSWER_WITHIN_S = 30.0
SLOW_S = 3.0
OPENING = "[opening: the model is loaded and the sandbox started]\n"
"""What a person reads who waits longer than that for a session to open."""

TITLE_CHARACTERS = 80
_T = TypeVar("_T")


@dataclass(frozen=True)
class Ended:
    """The end of a prompt: the protocol's stop reason, and facts for ``_meta``."""

    stop: str
    facts: dict[str, Any]


class EditorSession:
    """One session, made on the event loop.

    ``folder`` is the repository, and ``below`` the folder in it that the editor has open.
    ``request`` sends a request to the client and gives its result.
    """

    def __init__(
        self,
        session_id: str,
        folder: Path,
        below: str,
        settings: Settings,
        mode: Mode,
        policy: Policy,
        servers: tuple[McpServer, ...],
        hub: Hub,
        request: Callable[[str, Any], Any],
        outbox: Outbox,
    ) -> None:
        self.id = session_id
        self.folder = folder
        self.below = below
        self.settings = settings
        self.mode = mode
        self.outbox = outbox
        self._hub = hub
        self._own = find_extensions(folder, config_dir())
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"session-{session_id}")
        self._cancelled = asyncio.Event()
        self._idle = asyncio.Event()
        self._cancels = 0
        self.titled = False
        self._busy = False
        self._closed = False
        self._live: OpenSession | None = None
        self._opening: asyncio.Future[OpenSession] | None = None
        self._updates = Updates(outbox.put, terminals=hub.abilities.terminals)
        approver = Permission(session_id, self.ask_client, self._updates)
        self._approvals = Approvals(mode=ASKED[mode], approver=approver, rules=policy.rules)
        self._toolbox = Toolbox(
            (*policy.servers, *servers), settings.tools, skills=own_skills(config_dir())
        )
        self._client = Client(
            listen=self._updates,
            approvals=self._approvals,
            hooks=policy.hooks,
            tools=self._toolbox,
            talks=True,
            files=lambda exchange: EditorFiles(
                exchange,
                session_id,
                self._ask_files,
                reads=hub.abilities.reads,
                writes=hub.abilities.writes,
                below=below,
            ),
        )

    @property
    def busy(self) -> bool:
        """True while a prompt is being answered."""
        return self._busy

    def start(self) -> None:
        """Begin to open the sandbox and the model's state; the first prompt waits for it."""
        failed = self._opening is not None and self._opening.done() and self._opening.exception()
        if self._opening is None or failed:
            self._opening = asyncio.ensure_future(self._on_thread(self._ready))
            self._opening.add_done_callback(_seen)

    async def prompt(self, prompt: EditorPrompt) -> Ended:
        """Answer one prompt; one that comes while a cancelled one ends waits for that end.

        Raises ``RequestError`` if another one is being answered, and what opening and commands
        raise.
        """
        while self._busy and self._cancelled.is_set() and not self._closed:
            cancels = self._cancels
            await self._idle.wait()
            if cancels != self._cancels:
                return Ended("cancelled", {})
        if self._closed:
            raise RequestError(-32600, "this session was closed; use session/load")
        if self._busy:
            raise RequestError(-32600, "a turn is running in this session; cancel it or wait")
        self._busy = True
        self._idle.clear()
        self._cancelled.clear()
        self._client.stop.clear()
        try:
            self._announce(prompt)
            self.start()
            assert self._opening is not None
            slow = self._loop.call_later(SLOW_S, self.outbox.put, thought(OPENING))
            try:
                if not await self._or_cancelled(self._opening):
                    return Ended("cancelled", {})
            finally:
                slow.cancel()
            return await self._on_thread(self._answer, prompt)
        finally:
            await self.outbox.flush()
            self._busy = False
            self._idle.set()

    def cancel(self) -> None:
        """End the turn under way, if there is one."""
        self._cancels += 1
        if self._busy:
            self._client.stop.cancel()
            self._cancelled.set()

    async def close(self) -> None:
        """End everything of the session; what was said is saved."""
        if self._closed:
            return
        self._closed = True
        self._client.stop.cancel()
        self._cancelled.set()
        await self._on_thread(self._shut)
        await self._on_thread(self._toolbox.close)
        self._thread.shutdown(wait=False)

    async def replay(self, saved: SavedSession) -> None:
        """Tell all of a saved session's conversation. Raises ``StoreError``."""
        places = Places(self.folder, saved.info.root or "/workspace")
        updates = await self._on_thread(lambda: list(replay(records_of(saved), places)))
        for update in updates:
            self.outbox.put(update)
        await self.outbox.flush()

    def greet(self) -> None:
        """Tell the commands that may be typed."""
        self.outbox.put(available(self._own))

    def set_mode(self, name: str) -> None:
        """Set what is asked for from now on, also in a running turn. Raises ``ConfigError``."""
        self.mode = mode_named(name)
        self._approvals.mode = ASKED[self.mode]
        self.outbox.put(
            CurrentModeUpdate(session_update="current_mode_update", current_mode_id=self.mode)
        )
        self._loop.run_in_executor(None, self._tell_options)

    def options(self) -> list[Option]:
        """Return the present configuration options. May look at the disk for checkpoints."""
        return options(self.mode, self.settings, self._hub.model_names())

    def _tell_options(self) -> None:
        """Tell what changed otherwise than by the client's own choice of an option."""
        self.outbox.put(
            ConfigOptionUpdate(session_update="config_option_update", config_options=self.options())
        )

    async def set_option(self, name: str, value: str) -> None:
        """Change one option. Raises ``ConfigError``; ``RequestError`` while a turn runs."""
        if name == "mode":
            self.set_mode(value)
            return
        if name not in ("model", "effort", "thinking", "sandbox"):
            raise ConfigError(f"there is no option {name!r}")
        if self._busy:
            raise RequestError(-32600, "a turn is running in this session; wait for its end")
        given = {name: value}
        if name == "effort" and self.settings.thinking == "off":
            given["thinking"] = "auto"
        changed = check_settings(
            {**self.settings.model_dump(), **given}, [("the editor", {name: value})]
        )
        self._busy = True
        self._idle.clear()
        self._cancelled.clear()
        try:
            await self._on_thread(self._reset, name, changed)
        finally:
            self._busy = False
            self._idle.set()

    async def fork(self) -> SavedSession:
        """Save a copy of the session as it is now. Raises ``RequestError``, ``StoreError``."""
        if self._busy:
            raise RequestError(-32600, "a turn is running in this session; wait for its end")
        return await self._on_thread(lambda: self._ready().fork(self._hub.store))

    def ask_client(self, method: str, params: Any, within_s: float | None = None) -> Any:
        """Ask the client from the session's thread, and wait. See ``permission.Ask``."""
        waiting = asyncio.run_coroutine_threadsafe(self._asked(method, params), self._loop)
        try:
            return waiting.result(within_s)
        except TimeoutError:
            waiting.cancel()
            raise

    def _ask_files(self, method: str, params: Any) -> Any:
        """Ask the client about files, and raise errors of the operating system's kind alone."""
        try:
            return self.ask_client(method, params, ANSWER_WITHIN_S)
        except TimeoutError as error:
            raise OSError("the editor did not answer") from error

    async def _asked(self, method: str, params: Any) -> Any:
        await self.outbox.flush()
        question = asyncio.ensure_future(self._request(method, params))
        if not await self._or_cancelled(question):
            question.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await question
            raise InterruptedError("the turn was cancelled")
        return question.result()

    async def _or_cancelled(self, work: asyncio.Future[Any]) -> bool:
        """Wait for ``work``; False if the turn was cancelled first. Raises what it raises."""
        stop = asyncio.ensure_future(self._cancelled.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
        if not work.done():
            return False
        work.result()
        return True

    async def _on_thread(self, work: Callable[..., _T], *arguments: Any) -> _T:
        return await self._loop.run_in_executor(self._thread, work, *arguments)

    def _announce(self, prompt: EditorPrompt) -> None:
        """Send the first update after a prompt, at once: the title if there is none yet."""
        if not self.titled and command_in(prompt.text) is None:
            self.titled = True
            title = next(iter(prompt.text.splitlines()), "")[:TITLE_CHARACTERS]
            self.outbox.put(SessionInfoUpdate(session_update="session_info_update", title=title))
        elif (live := self._live) is not None:
            self.outbox.put(usage(live.used, live.model.engine.context_length))

    def _ready(self) -> OpenSession:
        """Return the live session, opened or opened again if need be. On the session's thread."""
        live = self._live
        if live is not None and not live.broken:
            return live
        self._shut()
        self._hub.tidy()
        model = self._hub.model(self.settings.model)
        settings = self._hub.with_image(self.settings, self.folder, self._updates)
        store = self._hub.store
        saved = store.get(self.id)
        if saved is None:
            task = Task("", self.folder, settings.check, folder=self.below)
            live = OpenSession.new(task, settings, model, self._client, store=store, name=self.id)
        else:
            live = OpenSession.reopen(saved, settings, model, self._client)
            live.load()
        self._live = live
        size = model.engine.context_length
        places = Places(self.folder, live.root)
        self._updates.enter(places, live.registry, len(live.steps), size)
        return live

    def _shut(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.close()

    def _reset(self, name: str, settings: Settings) -> None:
        """Go on with other settings. On the session's thread."""
        if name == "model":
            self._hub.model(settings.model)
        live = self._live
        if name == "thinking" and live is not None:
            set_thinking(live, settings.thinking)
        elif name == "effort" and live is not None:
            set_effort(live, "none" if settings.thinking == "off" else settings.effort)
        elif live is not None:
            self._shut()
        if name == "sandbox":
            settings = settings.model_copy(update={"image": None})
        self.settings = settings

    def _answer(self, prompt: EditorPrompt) -> Ended:
        """Run the turn itself, on the session's thread."""
        live = self._ready()
        self._updates.begin(len(live.steps))
        if (command := command_in(prompt.text)) is not None:
            return self._obey(command, live)
        live.touch(prompt.files)
        report = live.turn(self._own.spelt_out(prompt.text), prompt.pictures)
        self._updates.close()
        outcome = report.result.outcome
        if isinstance(outcome, Failed) and not self._client.stop.is_set():
            raise RequestError(-32603, outcome.reason)
        if isinstance(outcome, LimitReached):
            # The stop reason says only that there was a limit.
            self.outbox.put(message(f"[stopped: {summary_of(report.result)}]"))
        return Ended(_stop_reason(report), _facts(report))

    def _obey(self, command: Command, live: OpenSession) -> Ended:
        said = run_command(command, live, self._hub.store)
        if command.name in ("thinking", "effort"):
            self.settings = live.settings
            self._tell_options()
        self.outbox.put(message(said))
        self.outbox.put(usage(live.used, live.model.engine.context_length))
        return Ended("cancelled" if self._client.stop.is_set() else "end_turn", {})


def _stop_reason(report: SolveReport) -> str:
    outcome = report.result.outcome
    if isinstance(outcome, Interrupted | Failed):
        return "cancelled"
    if isinstance(outcome, LimitReached):
        return "max_tokens" if outcome.limit in ("tokens", "context") else "max_turn_requests"
    return "end_turn"


def _facts(report: SolveReport) -> dict[str, Any]:
    """Return what the turn cost, for who wants to see that nothing was prefilled twice."""
    status, _ = status_of(report.result, report.check)
    return {"status": status, "usage": report.cost.as_dict()}


def _seen(work: asyncio.Future[Any]) -> None:
    """Log the error of opening a session: nobody may ever wait for it."""
    if not work.cancelled() and (error := work.exception()) is not None:
        _log.warning("a session could not be opened: %s", error)
