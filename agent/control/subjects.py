"""The subjects to judge in a call: each command in it, each file it changes, or the tool itself."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.control.bash import UNKNOWN, Part, take_apart
from agent.control.rules import Judgement, Rule, Rules
from model.messages import ToolCall
from sandboxes.base import Sandbox
from sandboxes.errors import PathEscape
from tools.edits.preview import Change
from tools.registry import Registry
from tools.types import ToolKind

_WITH_SUBCOMMANDS = frozenset(
    """
    apt apt-get bundle bun cargo composer conda docker dotnet gem gh git go gradle helm hg
    kubectl mvn npm npx pip pip3 pipx pnpm podman poetry rustup svn systemctl terraform uv
    yarn
    """.split()  # noqa: SIM905
)
_NOT_AT_LARGE = frozenset(
    """
    . ash awk bash chgrp chmod chown curl dash dd doas env eval exec find fish kill ksh ln mv
    nc node perl php pkill python python3 rm rmdir rsync ruby scp sed sh shred source ssh su
    sudo tee truncate wget xargs zsh
    """.split()  # noqa: SIM905
)
"""Programs that "always" does not allow with other arguments: they can do anything, or harm."""


@dataclass(frozen=True)
class Subject:
    """One thing to judge. ``kind`` is what a mode calls it.

    ``shown`` names it to a person; "always" allows ``always``, which is ``shown`` itself or the
    pattern of ``rule``. ``tool`` is the tool's name, for rules on that.
    """

    kind: ToolKind
    shown: str
    always: str
    tool: str
    rule: Rule | None = None
    part: Part | None = None
    path: str | None = None
    name: str | None = None

    def judged(self, rules: Rules) -> Judgement:
        """Return what the rules say of it."""
        found = rules.of_name("tool", self.tool)
        if self.part is not None:
            found = found.severer(rules.of_part(self.part))
        elif self.path is not None:
            found = found.severer(
                rules.of_path("read" if self.kind == "read" else "edit", self.path)
            )
        elif self.name is not None:
            found = found.severer(rules.of_name("mcp", self.name))
        elif rules.forbids("command"):
            found = found.severer(Judgement("ask", "the command cannot be taken apart"))
        return found


@dataclass(frozen=True)
class Subjects:
    """The subjects of one call, and the files it would change."""

    subjects: tuple[Subject, ...] = ()
    changes: tuple[Change, ...] = ()


def subjects_of(call: ToolCall, kind: ToolKind, registry: Registry) -> Subjects:
    """Take ``call`` apart. An edit that would fail or change nothing has no subject.

    Raises ``SandboxGone``.
    """
    if kind == "edit":
        changes = registry.preview(call.name, call.arguments)
        if changes is None:
            rule = Rule("tool", call.name)
            return Subjects((Subject(kind, str(rule), str(rule), call.name, rule, name=""),))
        everywhere = Rule("edit", "**")
        return Subjects(
            tuple(
                Subject(
                    kind, f"edit({c.path})", str(everywhere), call.name, everywhere, path=c.path
                )
                for c in changes
            ),
            changes,
        )
    if kind == "command" and (text := written(call)) is not None:
        return Subjects(_of_command(call, text, registry.context.sandbox))
    if kind == "external":
        name = registry.subject(call.name)
        rule = Rule("mcp", name)
        return Subjects((Subject(kind, str(rule), str(rule), call.name, rule, name=name),))
    if kind == "read" and (path := _path(call.arguments, registry.context.sandbox)) is not None:
        rule = Rule("read", f"/{path}")
        return Subjects((Subject(kind, f"read({path})", str(rule), call.name, rule, path=path),))
    rule = Rule("tool", call.name)
    return Subjects((Subject(kind, str(rule), str(rule), call.name, rule, name=""),))


def written(call: ToolCall) -> str | None:
    """Return what a call gives to a shell; None if it gives nothing.

    It is the call's command, or what it writes to the input of a process, which may well be a
    shell.
    """
    text = call.arguments.get("command", call.arguments.get("input"))
    return None if text is None else str(text)


def _of_command(call: ToolCall, command: str, sandbox: Sandbox) -> tuple[Subject, ...]:
    parts = take_apart(command)
    if parts is None:
        return (Subject("command", command, command, call.name),)
    folder = call.arguments.get("directory")
    return tuple(_of_part(part, call.name, sandbox, folder) for part in parts)


def _of_part(part: Part, tool: str, sandbox: Sandbox, folder: Any) -> Subject:
    if part.kind == "write":
        path = part.text
        if not part.unknown:
            path = _from_root(posixpath.join(str(folder or ""), path), sandbox)
            part = Part("write", part.shown, path)
        return Subject("edit", f"edit({path})".replace(UNKNOWN, "…"), "edit(**)", tool, part=part)
    rule = _at_large(part)
    return Subject("command", part.shown, str(rule or part.shown), tool, rule, part)


def _at_large(part: Part) -> Rule | None:
    """Return the pattern that "always" allows; None for the command as it is, and no other."""
    words = part.text.split(" ")
    if part.inner or part.unknown or part.others or UNKNOWN in part.text:
        return None
    if words[0] in ("python", "python3") and words[1:2] == ["-m"] and len(words) > 2:
        taken = words[:3]
    elif words[0] in _NOT_AT_LARGE:
        return None
    elif words[0] in _WITH_SUBCOMMANDS:
        if len(words) < 2 or words[1].startswith("-"):
            return None
        taken = words[:2]
    else:
        taken = words[:1]
    if any(set(word) & set("*?=()\n") for word in taken):
        return None
    return Rule("command", " ".join([*taken, "*"]))


def _path(arguments: Mapping[str, Any], sandbox: Sandbox) -> str | None:
    """Return the path that a reading tool was given, from the repository's root."""
    given = arguments.get("file_path") or arguments.get("path")
    if not isinstance(given, str):
        return None
    try:
        return sandbox.relative(given)
    except (PathEscape, OSError, ValueError):
        # The tool refuses it.
        return None


def _from_root(path: str, sandbox: Sandbox) -> str:
    """Return a path as a command would write it, from the repository's root where it lies in it."""
    path = posixpath.normpath(path)
    root = sandbox.root.rstrip("/") + "/"
    return path.removeprefix(root)
