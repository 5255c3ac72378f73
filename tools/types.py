"""The types of a tool: what it tells the model (``ToolSpec``) and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from sandboxes.base import Sandbox
from sandboxes.shell.background import Background
from sandboxes.stop import Stop
from tools.files.code import CodeReader
from tools.files.seen import SeenFiles
from tools.schema import make_function_schema
from tools.text.token_estimate import estimate_tokens

ToolKind = Literal["read", "edit", "command", "external", "session"]
"""What a tool does, for whoever decides whether a call may run.

``read`` looks at the workspace, ``edit`` changes files of it, ``command`` runs what the model wrote
in the sandbox, ``external`` acts outside of the sandbox, ``session`` touches neither.
"""


MAX_CHARACTERS = 50_000
"""The longest observation of a tool that does not set its own bound."""


class PictureFile(Protocol):
    """The file of a picture: PNG, JPEG, GIF or WebP, as far as its first bytes say."""

    @property
    def name(self) -> str: ...

    @property
    def data(self) -> bytes: ...


@dataclass(frozen=True)
class FoundPicture:
    """A picture that a tool found; nobody has decoded it yet."""

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Observation:
    """The text that the model reads after a call.

    A tool's failure is an observation the model can act on, never an exception: ``ok`` is then
    False and ``text`` says what is wrong and what would work. ``truncated`` says that ``text`` is
    only a part. ``submitted`` is set by the ``submit`` tool alone. ``pictures`` are shown to a
    model with eyes; others have what ``text`` says of them.
    """

    text: str
    ok: bool = True
    truncated: bool = False
    submitted: bool = False
    pictures: tuple[PictureFile, ...] = ()

    def with_note(self, note: str) -> Observation:
        """Return the observation with ``note`` after an empty line."""
        return replace(self, text=f"{self.text}\n\n{note}")


@dataclass
class ToolContext:
    """The things that a tool may use; ``todos``, ``seen`` and ``code`` live as long as the session.

    A command that prints nothing for ``silence_s`` is left running.

    ``task`` is what the user asked for, by which a repository map is weighted, and
    ``count_tokens`` is what its budget is counted with. ``seen`` knows the content of the files
    that the model read or wrote; ``code`` parses source code and indexes the workspace.
    """

    sandbox: Sandbox
    command_timeout_s: float = 120.0
    silence_s: float | None = 60.0
    stop: Stop = field(default_factory=Stop)
    on_output: Callable[[str], None] | None = None
    todos: list[dict[str, str]] = field(default_factory=list)
    task: str = ""
    count_tokens: Callable[[str], int] = estimate_tokens
    seen: SeenFiles = field(default_factory=SeenFiles)
    code: CodeReader = field(default_factory=CodeReader)
    background: list[Background] = field(default_factory=list, repr=False)

    def processes(self) -> Background:
        """Return the processes that the session started in the background."""
        if not self.background:
            self.background.append(Background(self.sandbox))
        return self.background[0]


@dataclass(frozen=True)
class ToolSpec:
    """One tool: its name, what it tells the model, its parameters, and the function behind it.

    ``run`` may raise ``tools.errors.ToolFailure``; call it through ``Registry.run``, which makes
    every failure an observation. ``kind`` is ``command`` unless told, so that a tool that forgot to
    say is one that is asked for. ``subject`` is what rules call it where that is not its name.
    No observation of it is longer than ``max_characters``. ``only_reads`` tells which calls of a
    tool with several commands change nothing.
    """

    name: str
    description: str
    parameters: type[BaseModel]
    run: Callable[[ToolContext, Any], Observation]
    kind: ToolKind = "command"
    subject: str = ""
    max_characters: int = MAX_CHARACTERS
    only_reads: Callable[[Mapping[str, Any]], bool] | None = None

    def schema(self) -> Mapping[str, Any]:
        """Return the function schema for the chat template, without pydantic's titles."""
        return make_function_schema(self.name, self.description, self.parameters)
