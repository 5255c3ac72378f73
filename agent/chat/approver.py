"""Approvals in place: the session's thread asks, the screen shows it and answers with a key."""

from __future__ import annotations

import threading

from agent.chat.call_lines import call_line
from agent.chat.front import Front
from agent.chat.style import Style
from agent.control.approvals import Answer, Request, Verdict
from agent.control.subjects import written
from agent.text import visible
from sandboxes.stop import Stop
from tools.edits.preview import diff_lines

POLL_S = 0.1
SHOWN_LINES = 12


class ChatApprover:
    """The ``Approver`` of the chat.

    ``ask`` runs on the session's thread and waits; the rest belongs to the screen. ``stop``
    ends the turn, ``front`` draws the question.
    """

    def __init__(self, stop: Stop, front: Front) -> None:
        self._stop = stop
        self._front = front
        self._answered = threading.Event()
        self._answer = Answer("cancelled")
        self._request: Request | None = None

    @property
    def asks(self) -> bool:
        """True while a call waits for an answer."""
        return self._request is not None

    def ask(self, request: Request) -> Answer:
        """Show the request and wait; ``cancelled`` once the turn is to end."""
        self._answered.clear()
        self._answer = Answer("cancelled")
        self._request = request
        self._front.redraw()
        try:
            while not self._answered.wait(POLL_S):
                if self._stop.is_set():
                    return Answer("cancelled")
            return self._answer
        finally:
            self._request = None
            self._front.redraw()

    def decide(self, verdict: Verdict) -> None:
        """Answer the request that is shown; an answer to nothing is ignored."""
        self._give(Answer(verdict))

    def refuse(self, words: str) -> None:
        """Refuse the request that is shown, with ``words`` that the model hears."""
        self._give(Answer("reject", words))

    def lines(self, style: Style, columns: int) -> list[str]:
        """Return the call that waits, what it would do, and the keys; no lines for none."""
        request = self._request
        if request is None:
            return []
        head = f"{style.dot} {call_line(request.call)}: may it run? ({request.reason})"
        lines = style.text(head, "bold yellow", columns=columns)
        body = self.whole()
        shown = "\n".join(body[:SHOWN_LINES])
        if request.changes:
            lines += style.diff(shown, columns=columns)
        else:
            lines += style.text(shown, columns=columns, indent=2)
        if (more := len(body) - SHOWN_LINES) > 0:
            words = f"{more} more lines: Ctrl-O shows all"
            lines += style.text(words, "dim", columns=columns, indent=2)
        always = visible(", ".join(request.always)) or "this"
        keys = f"y yes   a always ({always})   n no   v never   or say what to do instead, Enter"
        return lines + style.text(keys, "bold", columns=columns)

    def whole(self) -> list[str]:
        """Return all lines of what the waiting call would do: a diff, a command, arguments."""
        request = self._request
        if request is None:
            return []
        if request.changes:
            return [line for change in request.changes for line in diff_lines(change)]
        command = written(request.call)
        if command is not None:
            return command.split("\n")
        return [f"{key}: {value}" for key, value in request.call.arguments.items()]

    def _give(self, answer: Answer) -> None:
        if self._request is not None:
            self._answer = answer
            self._answered.set()
