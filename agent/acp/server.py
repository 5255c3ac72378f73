"""The methods of the Agent Client Protocol, version 1, over the sessions of this process."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from acp import PROTOCOL_VERSION
from acp.agent.router import build_agent_router
from acp.connection import Connection
from acp.exceptions import RequestError
from acp.interfaces import Agent
from acp.router import Route
from acp.schema import (
    AgentCapabilities,
    ClientCapabilities,
    DeleteSessionRequest,
    ForkSessionResponse,
    Implementation,
    InitializeResponse,
    ListSessionsResponse,
    LoadSessionResponse,
    McpCapabilities,
    NewSessionResponse,
    PromptCapabilities,
    PromptResponse,
    ResumeSessionResponse,
    SessionCapabilities,
    SessionCloseCapabilities,
    SessionDeleteCapabilities,
    SessionForkCapabilities,
    SessionInfo,
    SessionListCapabilities,
    SessionNotification,
    SessionResumeCapabilities,
    SetSessionConfigOptionResponse,
)
from acp.utils import serialize_params
from pydantic import ValidationError

from agent import version
from agent.acp.stdio import Frames
from agent.errors import AgentError, ConfigError, SessionNotFound
from model.errors import ModelError
from sandboxes.errors import SandboxError

if TYPE_CHECKING:
    from agent.acp.hub import Hub
    from agent.acp.options import Mode, Option
    from agent.acp.session import EditorSession
    from agent.sessions.store import SavedSession
    from agent.settings.table import Settings

_log = logging.getLogger(__name__)

PAGE = 50
_CURSOR = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]+")
TITLE_CHARACTERS = 80
INVALID_REQUEST, INVALID_PARAMS, INTERNAL, NOT_FOUND = -32600, -32602, -32603, -32002


class Server:
    """A server of one client; ``flags`` are the command line's settings, ``mode`` the first."""

    def __init__(
        self,
        frames: Frames,
        flags: dict[str, Any],
        mode: Mode,
        *,
        make_hub: Callable[[dict[str, Any]], Hub] | None = None,
    ) -> None:
        """Make a server. ``make_hub`` runs on its own thread: importing torch takes seconds."""
        self._make_hub = make_hub or _make_hub
        self._frames = frames
        router = build_agent_router(cast(Agent, self), use_unstable_protocol=True)
        router.add_route(Route("session/delete", self._delete, "request"))
        self._connection = Connection(self._routed(router), frames, listening=False)
        self._flags = flags
        self._mode = mode
        self._client = ClientCapabilities()
        self._sessions: dict[str, EditorSession] = {}
        self._hub: Hub | None = None
        self._loading: asyncio.Future[Hub] | None = None
        self._beginning: asyncio.Future[None] | None = None
        self._stopped = asyncio.Event()

    async def serve(self) -> None:
        """Answer until the client goes; then end what runs and close every session."""
        reading = asyncio.ensure_future(self._connection.main_loop())
        stop = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait({reading, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            reading.cancel()
            sessions = list(self._sessions.values())
            for session in sessions:
                session.cancel()
            await asyncio.gather(*(s.close() for s in sessions), return_exceptions=True)
            await self._connection.close()

    def stop(self) -> None:
        """End as if the client had gone."""
        self._stopped.set()

    async def initialize(
        self,
        protocol_version: int,
        client_capabilities: ClientCapabilities | None = None,
        client_info: Implementation | None = None,
        **_: Any,
    ) -> InitializeResponse:
        """Return version 1, whatever was asked for, and what this agent can do."""
        self._client = client_capabilities or ClientCapabilities()
        _log.info("client %s asks for version %s", client_info, protocol_version)
        from agent.acp.content import sees_pictures

        sees = await asyncio.to_thread(sees_pictures, self._flags)
        self._beginning = asyncio.ensure_future(self._begin())
        return InitializeResponse(
            protocol_version=PROTOCOL_VERSION,
            agent_info=Implementation(name="tenuto", title="Tenuto", version=version()),
            auth_methods=[],
            agent_capabilities=AgentCapabilities(
                load_session=True,
                prompt_capabilities=PromptCapabilities(
                    image=sees, audio=False, embedded_context=True
                ),
                mcp_capabilities=McpCapabilities(http=True, sse=False),
                session_capabilities=SessionCapabilities(
                    list=SessionListCapabilities(),
                    resume=SessionResumeCapabilities(),
                    close=SessionCloseCapabilities(),
                    delete=SessionDeleteCapabilities(),
                    fork=SessionForkCapabilities(),
                ),
            ),
        )

    async def authenticate(self, method_id: str, **_: Any) -> None:
        """Accept every client: no authentication is needed."""

    async def new_session(
        self,
        cwd: str,
        additional_directories: list[str] | None = None,
        mcp_servers: Sequence[Any] | None = None,
        **_: Any,
    ) -> NewSessionResponse:
        """Make a session on the repository that ``cwd`` is or lies in; it is opened in the back."""
        from agent.run.standing import stand
        from agent.sessions.store import new_session_id

        given = _folder(cwd, additional_directories)
        hub = await self._ready()
        settings = await asyncio.to_thread(hub.settings, given)
        top, below = await asyncio.to_thread(stand, given, settings)
        session = self._make(new_session_id(), (top, below), settings, hub, mcp_servers)
        session.start()
        return NewSessionResponse(session_id=session.id, **await self._choices(session))

    async def load_session(
        self,
        cwd: str,
        session_id: str,
        mcp_servers: Sequence[Any] | None = None,
        additional_directories: list[str] | None = None,
        **_: Any,
    ) -> LoadSessionResponse:
        """Tell the session's conversation again, then answer."""
        session, saved = await self._open(cwd, session_id, additional_directories, mcp_servers)
        if saved is not None:
            await session.replay(saved)
        return LoadSessionResponse(**await self._choices(session))

    async def resume_session(
        self,
        session_id: str,
        cwd: str,
        additional_directories: list[str] | None = None,
        mcp_servers: Sequence[Any] | None = None,
        **_: Any,
    ) -> ResumeSessionResponse:
        """Go on with a session without telling its conversation."""
        session, _saved = await self._open(cwd, session_id, additional_directories, mcp_servers)
        return ResumeSessionResponse(**await self._choices(session))

    async def fork_session(
        self,
        session_id: str,
        cwd: str,
        additional_directories: list[str] | None = None,
        mcp_servers: Sequence[Any] | None = None,
        **_: Any,
    ) -> ForkSessionResponse:
        """Make a second session that goes on from where this one is."""
        place, session, saved = await self._found(cwd, session_id, additional_directories)
        hub = await self._ready()
        if session is not None:
            copy, mode = await session.fork(), session.mode
        else:
            assert saved is not None
            copy, mode = await asyncio.to_thread(_copied, hub, saved), self._mode
        fork = self._make(copy.id, place, hub.stored(copy), hub, mcp_servers, mode)
        fork.titled = True
        fork.start()
        return ForkSessionResponse(session_id=fork.id, **await self._choices(fork))

    async def list_sessions(
        self, cwd: str | None = None, cursor: str | None = None, **_: Any
    ) -> ListSessionsResponse:
        """List the saved sessions in which somebody spoke, newest first."""
        if cursor is not None and not _CURSOR.fullmatch(cursor):
            raise ConfigError("that cursor is none that session/list has given")
        hub = await self._ready()
        every = await asyncio.to_thread(hub.store.sessions)
        folder = None if cwd is None else _folder(cwd).resolve()
        kept = [
            saved
            for saved in reversed(every)
            if saved.info.task
            and (folder is None or folder in (saved.info.place, saved.info.repo))
            and (cursor is None or saved.id < cursor)
        ]
        more = kept[PAGE - 1].id if len(kept) > PAGE else None
        return ListSessionsResponse(sessions=[_info(s) for s in kept[:PAGE]], next_cursor=more)

    async def close_session(self, session_id: str, **_: Any) -> None:
        """Stop what the session does and let go of it; it stays saved."""
        session = self._session(session_id)
        session.cancel()
        await session.close()
        self._sessions.pop(session_id, None)

    async def prompt(self, session_id: str, prompt: list[Any], **_: Any) -> PromptResponse:
        """Run one turn; the answer comes when it is over and everything of it was told."""
        from agent.acp.content import read_prompt

        session = self._session(session_id)
        ended = await session.prompt(read_prompt(prompt, session.folder))
        response = PromptResponse(stop_reason=cast(Any, ended.stop))
        response.field_meta = {"tenuto": ended.facts} if ended.facts else None
        return response

    async def cancel(self, session_id: str, **_: Any) -> None:
        """End the session's turn. A session that is not open has none."""
        if (session := self._sessions.get(session_id)) is not None:
            session.cancel()

    async def set_session_mode(self, session_id: str, mode_id: str, **_: Any) -> None:
        """Set the mode: ``ask``, ``edit``, ``auto`` or ``plan``."""
        self._session(session_id).set_mode(mode_id)

    async def set_config_option(
        self, config_id: str, session_id: str, value: str | bool, **_: Any
    ) -> SetSessionConfigOptionResponse:
        """Set the mode, model, effort, thinking or sandbox."""
        session = self._session(session_id)
        await session.set_option(config_id, str(value))
        return SetSessionConfigOptionResponse(config_options=await self._options(session))

    async def ext_method(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Refuse the method: there are no extensions."""
        raise RequestError.method_not_found(f"_{method}")

    async def ext_notification(self, method: str, params: dict[str, Any]) -> None:
        """Ignore the notification: there are no extensions."""

    async def _delete(self, params: Any) -> dict[str, Any]:
        """Remove a saved session. One that is not there is removed already."""
        session_id = DeleteSessionRequest.model_validate(params).session_id
        if (session := self._sessions.pop(session_id, None)) is not None:
            session.cancel()
            await session.close()
        hub = await self._ready()
        with suppress(SessionNotFound):
            saved = await asyncio.to_thread(self._saved, hub, session_id)
            await asyncio.to_thread(hub.store.remove, saved.id)
        return {}

    def _routed(self, router: Any) -> Any:
        """Wrap ``router``, with our own errors in the protocol's words."""

        async def handle(method: str, params: Any, is_notification: bool) -> Any:
            try:
                return await router(method, params, is_notification)
            except SessionNotFound as error:
                raise RequestError(NOT_FOUND, str(error)) from error
            except ConfigError as error:
                raise RequestError(INVALID_PARAMS, str(error)) from error
            except (AgentError, ModelError, SandboxError) as error:
                raise RequestError(INTERNAL, str(error)) from error
            except (RequestError, ValidationError):
                raise
            except Exception as error:
                # One of the machine's, or a defect of ours; an editor shows the message alone.
                _log.exception("%s failed", method)
                why = str(error) if isinstance(error, OSError | MemoryError) else repr(error)
                why = " ".join(why.split()) or type(error).__name__
                text = f"{method} could not be done: {why} (more in the newest log of agent acp)"
                raise RequestError(INTERNAL, text) from error

        return handle

    async def _begin(self) -> None:
        """Load what is slow to load, once the client has its first answer.

        Importing torch holds the interpreter's lock for so long that the answer would wait for it.
        """
        await asyncio.sleep(0)  # until the answer is on its way
        await self._frames.written()
        self._load()

    def _load(self) -> asyncio.Future[Hub]:
        if self._loading is None:
            work = asyncio.to_thread(self._make_hub, self._flags)
            self._loading = asyncio.ensure_future(work)
        return self._loading

    async def _ready(self) -> Hub:
        if self._hub is None:
            hub = await asyncio.shield(self._load())
            from agent.acp.hub import Abilities

            files = self._client.fs
            meta = self._client.field_meta or {}
            hub.abilities = Abilities(
                reads=bool(files and files.read_text_file),
                writes=bool(files and files.write_text_file),
                terminals=bool(meta.get("terminal_output")),
            )
            await asyncio.to_thread(hub.tidy)
            self._hub = hub
        return self._hub

    def _session(self, session_id: str) -> EditorSession:
        session = self._sessions.get(session_id)
        if session is None:
            raise RequestError(
                NOT_FOUND, f"no session {session_id!r} is open; use session/new or session/load"
            )
        return session

    async def _open(
        self, cwd: str, session_id: str, more: list[str] | None, servers: Sequence[Any] | None
    ) -> tuple[EditorSession, SavedSession | None]:
        """Return the session of that id, opened if it is not; and its record, if it has one yet."""
        place, session, saved = await self._found(cwd, session_id, more)
        if saved is None:
            assert session is not None
            return session, None
        if session is None:
            hub = await self._ready()
            settings = hub.stored(saved)
            await asyncio.to_thread(_not_in_use, saved)
            session = self._make(saved.id, place, settings, hub, servers)
        session.titled = bool(saved.info.task)
        session.start()
        return session, saved

    async def _found(
        self, cwd: str, session_id: str, more: list[str] | None
    ) -> tuple[tuple[Path, str], EditorSession | None, SavedSession | None]:
        """Return the repository, the folder in it, the open session of that id, and its record."""
        folder = _folder(cwd, more)
        hub = await self._ready()
        session = self._sessions.get(session_id)
        if session is not None and session.busy:
            raise RequestError(INVALID_REQUEST, "a turn is running in this session; wait")
        try:
            saved = await asyncio.to_thread(self._saved, hub, session_id)
        except SessionNotFound:
            if session is None:
                raise
            return (session.folder, session.below), session, None
        if folder.resolve() not in (saved.info.place, saved.info.repo):
            if session is not None or not await asyncio.to_thread(_is_moved_to, saved, folder):
                raise ConfigError(f"session {saved.id} is one of {saved.info.place}, not {cwd}")
            saved = await asyncio.to_thread(_move, saved, folder)
        return (saved.info.repo, saved.info.folder), session, saved

    @staticmethod
    def _saved(hub: Hub, session_id: str) -> SavedSession:
        saved = hub.store.find(session_id)
        if saved.id != session_id:
            raise SessionNotFound(f"no session {session_id!r}")
        return saved

    def _make(
        self,
        session_id: str,
        place: tuple[Path, str],
        settings: Settings,
        hub: Hub,
        servers: Sequence[Any] | None,
        mode: Mode | None = None,
    ) -> EditorSession:
        from agent.acp.outbox import Outbox
        from agent.acp.servers import servers_given
        from agent.acp.session import EditorSession
        from agent.control.policy import load_policy

        send = partial(self._tell, session_id)
        session = EditorSession(
            session_id,
            *place,
            settings,
            mode or self._mode,
            load_policy(place[0] / place[1], mcp_from_repo=settings.mcp_from_repo),
            servers_given(servers),
            hub,
            self._ask,
            Outbox(send),
        )
        self._sessions[session_id] = session
        return session

    async def _tell(self, session_id: str, update: Any) -> None:
        notification = SessionNotification(session_id=session_id, update=update)
        await self._connection.send_notification("session/update", serialize_params(notification))

    async def _ask(self, method: str, params: Any) -> Any:
        return await self._connection.send_request(method, serialize_params(params))

    async def _options(self, session: EditorSession) -> list[Option]:
        return await asyncio.to_thread(session.options)

    async def _choices(self, session: EditorSession) -> dict[str, Any]:
        from agent.acp.options import modes

        found = await self._options(session)
        # After the answer: before it a client may not know the session yet.
        asyncio.get_running_loop().call_soon(session.greet)
        return {"modes": modes(session.mode), "config_options": found}


def _make_hub(flags: dict[str, Any]) -> Hub:
    """Import what is slow to import (torch), and let the model load in the back."""
    import threading

    from agent.acp import session  # noqa: F401 - imported here, off the event loop
    from agent.acp.hub import Hub

    hub = Hub(flags)
    threading.Thread(target=hub.prepare, name="prepare", daemon=True).start()
    return hub


def _folder(cwd: str, more: list[str] | None = None) -> Path:
    if more:
        raise ConfigError("additionalDirectories are not supported; open one session a folder")
    if not cwd.startswith("/"):
        raise ConfigError(f"cwd must be an absolute path, not {cwd!r}")
    return Path(cwd)


def _is_moved_to(saved: SavedSession, folder: Path) -> bool:
    from agent.sessions.moved import is_moved_to

    return is_moved_to(saved, folder)


def _move(saved: SavedSession, folder: Path) -> SavedSession:
    from agent.sessions.moved import locate_repository

    with saved.claim() as held:
        return held.update(repo=locate_repository(saved, folder))


def _not_in_use(saved: SavedSession) -> None:
    with saved.claim():
        pass


def _copied(hub: Hub, saved: SavedSession) -> SavedSession:
    with saved.claim() as held:
        return hub.store.copy(held, parent=held.id)


def _info(saved: SavedSession) -> SessionInfo:
    title = saved.info.task.strip().splitlines()[0][:TITLE_CHARACTERS]
    return SessionInfo(
        session_id=saved.id,
        cwd=str(saved.info.place),
        title=title,
        updated_at=saved.info.updated or None,
    )
