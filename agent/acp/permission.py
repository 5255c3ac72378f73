"""Asking the person through the editor whether a call may run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from acp.exceptions import RequestError
from acp.schema import (
    AllowedOutcome,
    PermissionOption,
    RequestPermissionRequest,
    RequestPermissionResponse,
    ToolCallUpdate,
)

from agent.acp.updates import Updates
from agent.control.approvals import Answer, Request, Verdict

ALWAYS_SHOWN = 60

Ask = Callable[[str, Any], Any]
"""``ask(method, params)``: the client's answer, waited for on the session's thread.

Raises ``InterruptedError`` once the turn was cancelled, ``ConnectionError`` when the client went
away, ``RequestError`` with what it answered in place of a result.
"""


class Permission:
    """The ``Approver`` of one session."""

    def __init__(self, session_id: str, ask: Ask, updates: Updates) -> None:
        self._session_id = session_id
        self._ask = ask
        self._updates = updates

    def ask(self, request: Request) -> Answer:
        """Ask the person, and return the answer.

        A client that closes its question without an answer rejects this one call; so does one that
        cannot ask.
        """
        call = ToolCallUpdate(**self._updates.permission_call(request.call, request.changes))
        params = RequestPermissionRequest(
            session_id=self._session_id, tool_call=call, options=_options(request)
        )
        try:
            given = self._ask("session/request_permission", params)
            answer = RequestPermissionResponse.model_validate(given)
        except (InterruptedError, ConnectionError):
            return Answer("cancelled")
        except (RequestError, ValueError):
            return Answer("reject", "The editor could not ask.")
        if not isinstance(answer.outcome, AllowedOutcome):
            return Answer("reject")
        return Answer(_VERDICTS.get(answer.outcome.option_id, "reject"))


_VERDICTS: dict[str, Verdict] = {
    "allow": "allow",
    "allow_always": "allow_always",
    "reject": "reject",
    "reject_always": "reject_always",
}


def _options(request: Request) -> list[PermissionOption]:
    always = _short(", ".join(request.always))
    never = _short(", ".join(request.subjects))
    return [
        PermissionOption(option_id="allow", name="Allow", kind="allow_once"),
        PermissionOption(
            option_id="allow_always", name=f"Always allow {always}", kind="allow_always"
        ),
        PermissionOption(option_id="reject", name="Reject", kind="reject_once"),
        PermissionOption(
            option_id="reject_always", name=f"Never allow {never}", kind="reject_always"
        ),
    ]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= ALWAYS_SHOWN else text[: ALWAYS_SHOWN - 1] + "…"
