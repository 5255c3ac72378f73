"""Events as JSON objects, for ``--output stream-json``: one a line, the kind under ``event``.

``start``        session, model, sandbox, attempt, attempts
``notice``       text
``compact``      before, after, kept, by_model
``check``        when, exit_code, output, duration_s
``call``         name, arguments
``observation``  name, text, ok, truncated
``step``         index (from 1), message, usage, ended
``end``          session, status, exit_status
``result``       last and once: the keys of ``--output json``

With several attempts at once, each object but the last also has its ``attempt``, from 1.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from agent.events import (
    CallDone,
    CallPlanned,
    CheckDone,
    Compacted,
    Event,
    FromAttempt,
    Notice,
    RunEnded,
    RunStarted,
    StepDone,
)
from agent.run.report import check_run_as_json
from agent.sessions.records import message_to_json


def notice_of(event: Event) -> str:
    """Return the part of the event worth knowing after the run, on one line; "" for most."""
    match event:
        case Notice(text):
            return text
        case Compacted():
            kept = f"; session {event.kept} keeps the old one" if event.kept else ""
            return f"context compacted from {event.before:,} to {event.after:,} tokens{kept}"
        case FromAttempt(number, inner):
            text = notice_of(inner)
            return f"[{number}] {text}" if text else ""
        case _:
            return ""


def event_as_json(event: Event) -> dict[str, Any] | None:
    """Return the event as an object, or None for the pieces that a later event holds whole."""
    match event:
        case RunStarted():
            return {"event": "start"} | dataclasses.asdict(event)
        case Notice(text):
            return {"event": "notice", "text": text}
        case Compacted():
            return {"event": "compact"} | dataclasses.asdict(event)
        case CheckDone(when, run):
            return {"event": "check", "when": when} | check_run_as_json(run)
        case CallPlanned(call):
            return {"event": "call", "name": call.name, "arguments": dict(call.arguments)}
        case CallDone(call, seen):
            fields = {"text": seen.text, "ok": seen.ok, "truncated": seen.truncated}
            return {"event": "observation", "name": call.name} | fields
        case StepDone(step):
            return {
                "event": "step",
                "index": step.index + 1,
                "message": message_to_json(step.message),
                "usage": step.usage.as_dict(),
                "ended": step.ended,
            }
        case RunEnded():
            fields = {"status": event.status, "exit_status": event.exit_status}
            return {"event": "end", "session": event.session} | fields
        case FromAttempt(number, inner):
            line = event_as_json(inner)
            return None if line is None else line | {"attempt": number}
        case _:
            return None
