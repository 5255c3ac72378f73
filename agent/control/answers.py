"""The subjects that a person answered "always" or "never" to, kept with the session.

``approvals.json`` in a session's folder; resumed and forked sessions go on with it. A file that
cannot be read or written costs a question, never a call that was not allowed.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel

from agent.control.rules import Rule, RuleKind, Rules
from sandboxes.paths import write_whole

FILE = "approvals.json"
MAX_BYTES = 1_000_000


class KeptAnswers(BaseModel):
    """The content of the file: rules as kind and pattern, and the answer to each subject."""

    allowed: tuple[tuple[RuleKind, str], ...]
    given: dict[str, bool]


@dataclass
class Answers:
    """The answers that hold for a session.

    ``allowed`` are the patterns of "always"; ``given`` says of one subject alone what holds.
    """

    allowed: Rules = field(default_factory=Rules)
    given: dict[str, bool] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)

    def keep_in(self, folder: Path) -> None:
        """Read what the session in ``folder`` has, and write what comes there from now on."""
        if folder in self.folders:
            return
        self.folders.append(folder)
        with suppress(OSError, ValueError):
            if (folder / FILE).stat().st_size <= MAX_BYTES:
                self._add(KeptAnswers.model_validate_json((folder / FILE).read_bytes()))

    def allow(self, subject: str, rule: Rule | None) -> None:
        """Keep an "always" for this subject and for what ``rule`` covers."""
        self.given[subject] = True
        if rule is not None and rule not in self.allowed.allow:
            self.allowed |= Rules(allow=(rule,))
        self._write()

    def refuse(self, *subjects: str) -> None:
        """Keep a "never" for these subjects alone."""
        self.given.update((subject, False) for subject in subjects)
        self._write()

    def _add(self, kept: KeptAnswers) -> None:
        self.allowed |= Rules(allow=tuple(Rule(kind, pattern) for kind, pattern in kept.allowed))
        # What is answered by now is newer.
        self.given = kept.given | self.given

    def _write(self) -> None:
        data = {
            "allowed": [[rule.kind, rule.pattern] for rule in self.allowed.allow],
            "given": self.given,
        }
        for folder in self.folders:
            with suppress(OSError), write_whole(folder / FILE) as draft:
                draft.write_text(json.dumps(data, indent=2) + "\n")
