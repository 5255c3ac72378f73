"""``session.json``: what a saved session is, and how it ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.sessions.typed_json import Fields
from model.usage import Usage

RUNNING = "running"
KILLED = "killed"
COMPACTED = "compacted"
UNREADABLE = "unreadable"
CHECKSUM = "its checksum"
NEEDED = ("task", "repo", "baseline", "head", "settings")
"""What a session needs to go on."""


@dataclass(frozen=True)
class SessionInfo:
    """Content of ``session.json``; a member that it lacks has its default.

    ``folder`` is where the user stood below ``repo``, "" at its top.
    ``baseline`` is the tree that the patch is measured against. In a session that stays open
    between user turns it moves with the user's own files, and ``began`` is the first one; ``root``
    is then where the workspace lies in the sandbox. ``allowed_from`` is the number of steps from
    which on limits count. ``attempt`` of ``attempts`` is set where there were several, ``parent``
    is the session that this one was copied from. ``settings`` are those of ``agent.config``.
    ``pictures`` are those of the task, by hash.
    ``stored`` is the JSON as it is written, with members that this version does not know; ``wrong``
    names the members whose type is not what it should be.
    """

    id: str = ""
    created: str = ""
    updated: str = ""
    status: str = UNREADABLE
    owner: str = ""
    task: str = ""
    repo: Path = Path()
    folder: str = ""
    check: str | None = None
    model: str = ""
    fingerprint: str = ""
    tokenizer: str = ""
    version: str = ""
    sandbox: str = ""
    image: str | None = None
    network: str = ""
    thinking: str = ""
    pictures: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    sampling: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    baseline: str = ""
    began: str = ""
    head: str = ""
    root: str = ""
    allowed_from: int = 0
    attempt: int | None = None
    attempts: int | None = None
    parent: str | None = None
    exit_status: int | None = None
    summary: str = ""
    steps: int | None = None
    usage: Usage = field(default_factory=Usage)
    check_result: Mapping[str, Any] = field(default_factory=dict)
    stored: Mapping[str, Any] = field(default_factory=dict, repr=False)
    wrong: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """True if everything that is needed to go on is there and of the right type."""
        return not self.wrong and all(key in self.stored for key in NEEDED)

    @property
    def place(self) -> Path:
        """The folder that the user stood in."""
        return self.repo / self.folder

    @property
    def first_tree(self) -> str:
        """The tree of the files that the session began with."""
        return self.began or self.baseline

    def changed(self, **fields: Any) -> SessionInfo:
        """Return the same with ``fields`` changed; texts, numbers, ``Path`` and ``Usage``."""
        if unknown := fields.keys() - _READERS.keys():
            raise TypeError(f"SessionInfo has no {', '.join(sorted(unknown))}")
        info = info_from_json({**self.stored, **{k: _plain(v) for k, v in fields.items()}})
        kept = tuple(name for name in self.wrong if name == CHECKSUM)
        return dataclasses.replace(info, wrong=(*info.wrong, *kept)) if kept else info


def new_info(**fields: Any) -> SessionInfo:
    """Return the info of a new session. Its JSON has ``fields`` in the order given."""
    return SessionInfo(stored={"format": 1}).changed(**fields)


def info_from_json(data: Any) -> SessionInfo:
    """Read ``session.json``; what is no object has the status ``unreadable``."""
    if not isinstance(data, dict):
        return SessionInfo()
    values: dict[str, Any] = {}
    wrong = []
    fields = Fields(data)
    for name, read in _READERS.items():
        if name in data:
            try:
                values[name] = read(fields, name)
            except (TypeError, ValueError):
                wrong.append(name)
    return SessionInfo(**values, stored=data, wrong=tuple(wrong))


def usage_from_json(data: Mapping[str, Any]) -> Usage:
    """Read counters. Raises ``TypeError``."""
    fields = Fields(data)
    for name in data:
        fields.decimal(name)
    return Usage(**data)


def _plain(value: Any) -> Any:
    if isinstance(value, Usage):
        return value.as_dict()
    return str(value) if isinstance(value, Path) else value


def _maybe_object(fields: Fields, key: str) -> Mapping[str, Any]:
    return {} if fields.is_null(key) else fields.object(key)


_BY_TYPE: Mapping[str, Any] = {
    "str": Fields.text,
    "str | None": Fields.maybe_text,
    "int": Fields.number,
    "int | None": Fields.maybe_number,
    "Path": lambda fields, key: Path(fields.text(key)),
    "Usage": lambda fields, key: usage_from_json(fields.object(key)),
    "Mapping[str, Any]": _maybe_object,
}
_READERS: Mapping[str, Any] = {
    item.name: _BY_TYPE[str(item.type)]
    for item in dataclasses.fields(SessionInfo)
    if item.name not in ("stored", "wrong")
}
