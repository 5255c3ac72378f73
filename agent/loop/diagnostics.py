"""Tell with an edit's result what the repository's own linters newly say of the changed file.

They run in the sandbox, beside the model's shell, on the changed file alone, before its first edit
and after each; what they said before is not told. A repository that names no linter pays nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.loop.linters import LINTERS, Linter, LintFinding
from model.messages import ToolCall
from sandboxes.base import Sandbox
from sandboxes.errors import SandboxError, SandboxGone
from sandboxes.stop import Stop
from tools.registry import Registry
from tools.types import Observation

AUTO, OFF = "auto", "off"
TIMEOUT_S = 15.0
MARK_BYTES = 65_536
SHOWN = 8
CHARACTERS = 300
HEAD = "{name} says since this edit:"
MORE = "and {count} more"
_LOCAL_PROGRAMS = 'PATH="$PATH:./node_modules/.bin:./.venv/bin"'
_PATCHED = re.compile(r"^(?:\*\*\* (?:Add|Update) File: |\+\+\+ (?:b/)?)(\S[^\t\n]*)", re.M)


@dataclass
class Diagnostics:
    """The overseer that adds new findings to an edit's result.

    ``wanted`` is ``auto`` (the linters that the repository's files name), ``off``, or names parted
    by commas. A linter that takes longer than ``TIMEOUT_S`` is not asked again.
    """

    sandbox: Sandbox
    wanted: str
    stop: Stop
    _linters: list[Linter] | None = None
    _known: dict[tuple[str, str], list[LintFinding]] = field(default_factory=dict)

    def before(self, call: ToolCall, registry: Registry) -> Observation | None:
        """Learn what the linters say of the file as it is. Forbids nothing."""
        if self.wanted != OFF and registry.kind(call.name, call.arguments) == "edit":
            for path in self._paths(call):
                for linter in self._for(path):
                    if (linter.name, path) not in self._known:
                        self._known[linter.name, path] = self._ask(linter, path)
        return None

    def after(self, call: ToolCall, seen: Observation) -> Observation:
        """Return ``seen`` with what the linters say now and did not say before."""
        if not seen.ok or self.wanted == OFF:
            return seen
        for path in self._paths(call):
            for linter in self._for(path):
                earlier = self._known.get((linter.name, path))
                if earlier is None:
                    continue
                now = self._ask(linter, path)
                self._known[linter.name, path] = now
                if new := new_findings(earlier, now):
                    seen = seen.with_note(_told(linter, new))
        return seen

    def _paths(self, call: ToolCall) -> list[str]:
        """Return the files that the call changes, from the repository's top."""
        given = [call.arguments.get(key) for key in ("file_path", "path")]
        for key in ("patch", "input"):
            text = call.arguments.get(key)
            given += _PATCHED.findall(text) if isinstance(text, str) else []
        found: dict[str, None] = {}
        for path in given:
            if isinstance(path, str):
                try:
                    found[self.sandbox.relative(path)] = None
                except SandboxGone:
                    raise
                except (SandboxError, OSError, ValueError):
                    continue
        return list(found)

    def _for(self, path: str) -> list[Linter]:
        if self._linters is None:
            self._linters = self._chosen()
        return [linter for linter in self._linters if path.endswith(linter.endings)]

    def _chosen(self) -> list[Linter]:
        """Return the linters that are named and that the image has."""
        if self.wanted == AUTO:
            named = [linter for linter in LINTERS.values() if any(map(self._marked, linter.marks))]
        else:
            names = [name.strip() for name in self.wanted.split(",")]
            named = [LINTERS[name] for name in names if name in LINTERS]
        return [linter for linter in named if self._run(f"command -v {linter.name}") is not None]

    def _marked(self, mark: str) -> bool:
        name, _, text = mark.partition(":")
        try:
            return text.encode() in self.sandbox.read_bytes(name, max_bytes=MARK_BYTES)
        except SandboxGone:
            raise
        except (SandboxError, OSError, ValueError):
            return False

    def _ask(self, linter: Linter, path: str) -> list[LintFinding]:
        """Return what ``linter`` says of ``path``; nothing if it does not answer in time."""
        output = self._run(linter.line_for(path), failing=True)
        if output is None:
            self._linters = [one for one in self._linters or () if one is not linter]
            return []
        said = linter.findings(output)
        return [one for one in said if one.path == path or one.path.endswith(f"/{path}")]

    def _run(self, command: str, *, failing: bool = False) -> str | None:
        """Run a command beside the model's shell; return its output, None if it did not end.

        With ``failing`` an exit code other than 0 is an answer too, as linters give.
        """
        try:
            shell = self.sandbox.second_shell()
            try:
                line = f"({_LOCAL_PROGRAMS}; {command})"
                done = shell.run(line, timeout_s=TIMEOUT_S, stop=self.stop)
            finally:
                shell.close()
        except SandboxGone:
            raise
        except SandboxError:
            return None
        ended = done.exit_code is not None and (failing or done.exit_code == 0)
        return done.output if ended else None


def new_findings(before: Sequence[LintFinding], after: Sequence[LintFinding]) -> list[LintFinding]:
    """Return the findings of ``after`` that ``before`` does not have as often, wherever they stand.

    Lines move with an edit, so a finding is the same by its file and words.
    """
    had = Counter((one.path, _words(one.text)) for one in before)
    new = []
    for one in after:
        key = (one.path, _words(one.text))
        if had[key]:
            had[key] -= 1
        else:
            new.append(one)
    return new


def _words(text: str) -> str:
    """Return the text without numbers of lines in it, which move."""
    return re.sub(r"line \d+", "line", text)


def _told(linter: Linter, findings: Sequence[LintFinding]) -> str:
    lines = [HEAD.format(name=linter.name)]
    lines += [f"line {one.line}: {one.text[:CHARACTERS]}" for one in findings[:SHOWN]]
    if (more := len(findings) - SHOWN) > 0:
        lines.append(MORE.format(count=more))
    return "\n".join(lines)
