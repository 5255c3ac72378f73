"""Rules for calls: what is allowed, asked for, or denied, whatever the mode.

A rule is a pattern. On its own it is held against shell commands, each part of a compound command
by itself; in ``edit(…)``, ``read(…)``, ``mcp(…)`` or ``tool(…)`` against paths, ``server.tool`` or
a tool's name:

    rm -rf *            git push*            edit(.github/**)          mcp(github.delete_*)

In commands and names ``*`` is any text and ``?`` one character; a last `` *`` may also be nothing.
In paths ``*`` ends at ``/`` and ``**`` does not; a pattern without ``/`` fits at any depth, and one
that names a folder fits what is in it.

The most severe rule that fits decides: deny, then ask, then allow. A rule that may fit a part which
cannot be known before it runs (``git $X``) asks.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent.control.bash import UNKNOWN, Part
from agent.errors import ConfigError

RuleKind = Literal["command", "edit", "read", "mcp", "tool"]
Ruling = Literal["deny", "ask", "allow", "open"]

MAX_PATTERN = 1000
HARMLESS = frozenset({"cd", "pwd", "true", "false", ":"})
"""Commands that need nobody's leave unless a rule names them."""
_WRITTEN = re.compile(r"(command|edit|read|mcp|tool)\((.*)\)", re.DOTALL)
_CALLED = re.compile(r"\w+\(.*\)|(command|edit|read|mcp|tool)\(.*", re.DOTALL)
_SEVERITY: tuple[Ruling, ...] = ("open", "allow", "ask", "deny")


@dataclass(frozen=True)
class Rule:
    """One pattern and what it is held against."""

    kind: RuleKind
    pattern: str

    @classmethod
    def parse(cls, written: str) -> Rule:
        """Read one rule. Raises ``ConfigError``."""
        match = _WRITTEN.fullmatch(written.strip())
        if match is None and _CALLED.fullmatch(written.strip()):
            raise ConfigError(
                f"rule {written!r}: write command(…), edit(…), read(…), mcp(…), tool(…), or a bare "
                "command pattern"
            )
        kind: Any = match[1] if match else "command"  # what the expression lets through
        pattern = match[2] if match else written.strip()
        if not pattern or len(pattern) > MAX_PATTERN or UNKNOWN in pattern:
            raise ConfigError(f"rule {written[:80]!r}: give 1 to {MAX_PATTERN} characters")
        return cls(kind, pattern)

    def __str__(self) -> str:
        return self.pattern if self.kind == "command" else f"{self.kind}({self.pattern})"


@dataclass(frozen=True)
class Judgement:
    """The rules' verdict on one subject, and the rule behind it ("" if it is the mode's turn)."""

    ruling: Ruling
    why: str = ""

    def severer(self, other: Judgement) -> Judgement:
        """Return the one of the two that weighs more."""
        first = _SEVERITY.index(self.ruling) >= _SEVERITY.index(other.ruling)
        return self if first else other


@dataclass(frozen=True)
class Rules:
    """All rules that hold, in no order."""

    allow: tuple[Rule, ...] = ()
    ask: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()

    @classmethod
    def parse(
        cls, allow: Iterable[str] = (), ask: Iterable[str] = (), deny: Iterable[str] = ()
    ) -> Rules:
        """Read the three lists. Raises ``ConfigError``."""
        return cls(*(tuple(map(Rule.parse, lines)) for lines in (allow, ask, deny)))

    def __or__(self, other: Rules) -> Rules:
        return Rules(self.allow + other.allow, self.ask + other.ask, self.deny + other.deny)

    def forbids(self, *kinds: RuleKind) -> bool:
        """Tell whether any rule of these kinds can do more than allow."""
        return any(rule.kind in kinds for rule in (*self.ask, *self.deny))

    def of_path(self, kind: Literal["edit", "read"], path: str) -> Judgement:
        """Return the judgement on a file; ``path`` is written from the repository's root."""
        return self._first(kind, lambda rule: path_fits(rule.pattern, path))

    def of_name(self, kind: Literal["mcp", "tool"], name: str) -> Judgement:
        """Return the judgement on a tool."""
        return self._first(kind, lambda rule: fits(rule.pattern, name))

    def of_part(self, part: Part) -> Judgement:
        """Return the judgement on one part of a command and on what it runs in turn."""
        if part.kind == "write":
            return self._of_written(part)
        found = Judgement("open")
        for inner in part.inner:
            # What is allowed inside allows the wrapper only if that is all the wrapper does.
            judged = self.of_part(inner)
            if judged.ruling in ("deny", "ask"):
                found = found.severer(judged)
        readings = (part.text, *part.others)
        for rule in self._of_kind(self.deny, "command"):
            if any(fits(rule.pattern, reading) for reading in readings):
                return Judgement("deny", str(rule))
            if any(may_fit(rule.pattern, reading) for reading in readings):
                found = found.severer(Judgement("ask", f"may be {rule}"))
        for rule in self._of_kind(self.ask, "command"):
            if any(may_fit(rule.pattern, reading) for reading in readings):
                found = found.severer(Judgement("ask", str(rule)))
        if part.unknown and self.forbids("command"):
            found = found.severer(Judgement("ask", "what it runs cannot be known"))
        return found.severer(self._allowed(part))

    def _allowed(self, part: Part) -> Judgement:
        for rule in self._of_kind(self.allow, "command"):
            if fits(rule.pattern, part.text):
                return Judgement("allow", str(rule))
        if part.text.split(" ", 1)[0] in HARMLESS:
            return Judgement("allow")
        if part.plain and part.inner:
            judged = [self.of_part(inner) for inner in part.inner]
            if all(one.ruling == "allow" for one in judged):
                return judged[0]
        return Judgement("open")

    def _of_written(self, part: Part) -> Judgement:
        if not part.unknown:
            return self.of_path("edit", posixpath.normpath(part.text))
        if self.forbids("edit"):
            return Judgement("ask", "which file it writes cannot be known")
        return Judgement("open")

    def _first(self, kind: RuleKind, fit: Callable[[Rule], bool]) -> Judgement:
        lists: tuple[tuple[Ruling, tuple[Rule, ...]], ...]
        lists = (("deny", self.deny), ("ask", self.ask), ("allow", self.allow))
        for ruling, rules in lists:
            for rule in self._of_kind(rules, kind):
                if fit(rule):
                    return Judgement(ruling, str(rule))
        return Judgement("open")

    @staticmethod
    def _of_kind(rules: Sequence[Rule], kind: RuleKind) -> list[Rule]:
        return [rule for rule in rules if rule.kind == kind]


def fits(pattern: str, text: str) -> bool:
    """Tell whether ``text`` surely fits: what is unknown in it is covered by a ``*``."""
    if pattern.endswith(" *") and _glob(pattern[:-2], text):
        return True
    return _glob(pattern, text)


def may_fit(pattern: str, text: str) -> bool:
    """Tell whether ``text`` could fit, once what is unknown in it is known."""
    if pattern.endswith(" *") and may_fit(pattern[:-2], text):
        return True
    if UNKNOWN not in text:
        return _glob(pattern, text)
    end = len(pattern)
    places = _closed(pattern, {0})
    for character in text:
        if character == UNKNOWN:
            places = set(range(min(places), end + 1))
        else:
            moved = set()
            for place in places:
                if place < end and pattern[place] == "*":
                    moved.add(place)
                elif place < end and pattern[place] in ("?", character):
                    moved.add(place + 1)
            places = _closed(pattern, moved)
        if not places:
            return False
    return end in places


def path_fits(pattern: str, path: str) -> bool:
    """Tell whether ``pattern`` means ``path`` or a folder that it lies in.

    ``path`` is written from the repository's root.
    """
    wanted = pattern.strip("/").split("/")
    if len(wanted) == 1 and not pattern.startswith("/"):
        wanted.insert(0, "**")
    places = {0}
    for name in path.split("/"):
        reached = _deeper(wanted, places)
        if len(wanted) in reached:
            return True
        places = {at for at in reached if wanted[at] == "**"}
        places |= {at + 1 for at in reached if wanted[at] != "**" and _glob(wanted[at], name)}
    return len(wanted) in _deeper(wanted, places)


def _deeper(wanted: Sequence[str], places: set[int]) -> set[int]:
    """Return ``places`` and those behind a ``**``, which may stand for no folder."""
    found = set(places)
    for at in places:
        while at < len(wanted) and wanted[at] == "**":
            at += 1
            found.add(at)
    return found


def _closed(pattern: str, places: set[int]) -> set[int]:
    """Return ``places`` and those behind a ``*``, which may stand for nothing."""
    found = set(places)
    for place in places:
        while place < len(pattern) and pattern[place] == "*":
            place += 1
            found.add(place)
    return found


def _glob(pattern: str, text: str) -> bool:
    """Tell whether ``text`` fits.

    This goes back to the last star only, so hostile patterns are not slow.
    """
    at = here = 0
    star, resume = -1, 0
    while here < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, resume = at, here
            at += 1
        elif at < len(pattern) and (
            pattern[at] == text[here] or (pattern[at] == "?" and text[here] != UNKNOWN)
        ):
            at += 1
            here += 1
        elif star >= 0:
            resume += 1
            at, here = star + 1, resume
        else:
            return False
    return pattern[at:].strip("*") == ""
