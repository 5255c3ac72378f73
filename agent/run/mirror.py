"""Keeps the user's files and those of the private copy alike while a session is open.

What a call changed in the copy is carried to the user's files once the call is done, and what the
user changed is carried into the copy before the next turn and before a call looks at that file.
Where both changed one file, the changes are joined if they touch different lines; if not, the
user's version stands and the model is told.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from contextlib import suppress

from agent.client import OnDisk, UserFiles
from agent.sessions.records import PulledRecord
from agent.sessions.store import now as time_now
from agent.sessions.trajectory import TrajectoryWriter
from model.messages import ToolCall
from sandboxes.errors import PathEscape, SandboxError
from sandboxes.workspace.exchange import LINK, Exchange, File, Signature
from sandboxes.workspace.workspace import MAX_FILE_BYTES, Workspace
from tools.registry import Registry
from tools.types import Observation, ToolKind

CONFLICT = (
    "Not kept: the user changed {paths} at the same time, in the same lines. Their version stands; "
    "read it again."
)
UNWRITTEN = "The user's {path} could not be written: {why}."
NAMED = 20


class Mirror:
    """An overseer of calls that carries files. Used on the session's own thread.

    ``record`` gets the paths that came from the user.
    """

    def __init__(
        self,
        workspace: Workspace,
        files: Callable[[Exchange], UserFiles] = OnDisk,
        record: TrajectoryWriter | None = None,
    ) -> None:
        self._workspace = workspace
        self._exchange = workspace.exchange()
        self._files = files(self._exchange)
        self._disk = OnDisk(self._exchange)
        self._record = record
        self._left_out = frozenset(workspace.left_out)
        self._seen: dict[str, Signature] = {}
        self._touched: set[str] = set()
        self._owed: dict[str, File | None] = {}
        self._kind: ToolKind | None = None
        self.base = workspace.checkpoint()

    def touch(self, paths: Iterable[str]) -> None:
        """Look at ``paths``, of which the user speaks, also in the editor, before each turn."""
        self._touched.update(paths)

    def look(self) -> list[str]:
        """Carry everything, both ways. Returns what came from the user. Raises ``SandboxError``."""
        now = self._exchange.listed()
        paths = {path for path, seen in now.items() if self._seen.get(path) != seen}
        paths |= self._seen.keys() - now.keys()
        if self._files.asks:
            paths |= self._touched
        return self._carry(paths)[0]

    def take_back(self, tree: str, keep: Iterable[str]) -> list[str]:
        """Make both sides hold ``tree``, an earlier checkpoint, but for the paths ``keep``.

        Returns the paths of ``keep`` that differ from it. Raises ``SandboxError``.
        """
        self.look()
        now = self._workspace.checkpoint()
        kept, users = [], frozenset(keep)
        for path, (_, then) in self._exchange.changes(now, tree).items():
            if path in users:
                kept.append(path)
            else:
                self._exchange.write_ours(path, self._exchange.stored(then))
        self._carry(())
        return kept

    def before(self, call: ToolCall, registry: Registry) -> Observation | None:
        """Bring in what the user changed in the file that the call is about."""
        self._kind = registry.kind(call.name)
        given = call.arguments.get("file_path")
        if self._kind in ("read", "edit") and isinstance(given, str):
            with suppress(PathEscape, OSError, ValueError):
                path = registry.context.sandbox.relative(given)
                self._touched.add(path)
                if self._files.asks or self._signature(path) != self._seen.get(path):
                    self._carry({path}, only=True)
        return None

    def after(self, call: ToolCall, seen: Observation) -> Observation:
        """Carry what the call changed, and say so where that could not be."""
        if self._kind not in ("edit", "command", "external"):
            return seen
        try:
            _, lost, failed = self._carry(())
        except SandboxError as error:
            failed, lost = [f"{error}"], []
        if lost:
            named = ", ".join(lost[:NAMED])
            failed.append(CONFLICT.format(paths=named))
        if not failed:
            return seen
        return dataclasses.replace(seen, text="\n\n".join([seen.text, *failed]), ok=False)

    def _signature(self, path: str) -> Signature | None:
        return self._exchange.signatures({path}).get(path)

    def _carry(
        self, paths: Iterable[str], *, only: bool = False
    ) -> tuple[list[str], list[str], list[str]]:
        """Settle ``paths`` and all that changed in the copy; ``only`` those if that is nothing.

        Returns what came from the user, what of ours was lost, and what could not be written.
        """
        pulled: list[str] = []
        lost: list[str] = []
        failed: list[str] = []
        wanted = set(paths) - self._left_out
        if only and not any(self._differs(path) for path in wanted):
            self._seen.update(self._exchange.signatures(wanted))
            return pulled, lost, failed
        tree = self._workspace.checkpoint()
        changed = self._exchange.changes(self.base, tree) if tree != self.base else {}
        adopted = False
        for path in sorted(wanted | changed.keys() | self._owed.keys()):
            if path in self._left_out:
                continue
            try:
                if path in changed or path in self._owed:
                    if path in self._owed:
                        base = self._owed.pop(path)
                    else:
                        base = self._exchange.stored(changed[path][0])
                    outcome = self._settle(path, base)
                else:
                    outcome = self._adopt(path)
            except OSError as error:
                failed.append(UNWRITTEN.format(path=path, why=error.strerror or error))
                continue
            adopted |= outcome in ("pulled", "lost", "joined")
            if outcome == "pulled":
                pulled.append(path)
            elif outcome == "lost":
                lost.append(path)
        self.base = self._workspace.checkpoint() if adopted else tree
        now = self._exchange.signatures(wanted | changed.keys())
        for path in wanted | changed.keys():
            self._seen.pop(path, None)
        self._seen.update(now)
        if (pulled or lost) and self._record is not None:
            self._record.write(PulledRecord((*pulled, *lost), time_now()))
        return pulled, lost, failed

    def _differs(self, path: str) -> bool:
        return self._read(path) != self._exchange.ours(path)

    def _read(self, path: str) -> File | None:
        """Read the user's file; the editor is asked only for those that the session is about."""
        return (self._files if path in self._touched else self._disk).read(path)

    def _adopt(self, path: str) -> str:
        """Take over what the user has at ``path``, where we changed nothing."""
        users, ours = self._read(path), self._exchange.ours(path)
        if users == ours or (users is not None and len(users.content) > MAX_FILE_BYTES):
            return "same"
        self._exchange.write_ours(path, users)
        return "pulled"

    def _settle(self, path: str, base: File | None) -> str:
        """Bring both sides together at ``path``, which we changed from ``base``."""
        users, ours = self._files.read(path), self._exchange.ours(path)
        if users == ours:
            return "same"
        if users != base:
            joined = self._joined(base, users, ours)
            if joined is None:
                self._exchange.write_ours(path, users)
                return "lost"
            self._exchange.write_ours(path, joined)
            ours = joined
        try:
            self._files.write(path, ours)
        except OSError:
            self._owed[path] = users
            raise
        self._touched.add(path)
        return "joined" if users != base else "pushed"

    def _joined(self, base: File | None, users: File | None, ours: File | None) -> File | None:
        if base is None or users is None or ours is None:
            return None
        if LINK in (base.mode, users.mode, ours.mode):
            return None
        content = self._exchange.merged(base.content, users.content, ours.content)
        return None if content is None else File(ours.mode, content)
