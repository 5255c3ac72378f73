"""Frames of the Agent Client Protocol: recording them between two processes, and judging them.

As a program, ``acp_wire.py RECORD COMMAND...`` runs the command and passes its stdin and stdout on,
writing every line of both into RECORD.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent.parent / "golden" / "acp"


class Schema:
    """The published schema, by method. Frames that it does not know are errors."""

    def __init__(self) -> None:
        from jsonschema import Draft202012Validator

        self._checks: dict[tuple[str, str], Any] = {}
        for name, only in (("schema.json", None), ("schema.unstable.json", "session/fork")):
            whole = json.loads((GOLDEN / name).read_text("utf-8"))
            for title, part in whole["$defs"].items():
                method = part.get("x-method")
                if method is None or (only is not None and method != only):
                    continue
                kind = "result" if title.endswith("Response") else "params"
                where = {"$ref": f"#/$defs/{title}", "$defs": whole["$defs"]}
                self._checks[method, kind] = Draft202012Validator(where)
            if only is None:
                self._error = Draft202012Validator(
                    {"$ref": "#/$defs/Error", "$defs": whole["$defs"]}
                )

    def params(self, method: str, value: Any) -> None:
        """Raises if these are not the parameters of ``method``."""
        self._judge(method, "params", value)

    def result(self, method: str, value: Any) -> None:
        """Raises if this is not a result of ``method``."""
        self._judge(method, "result", value)

    def error(self, value: Any) -> None:
        """Raises if this is no error."""
        self._error.validate(value)

    def _judge(self, method: str, kind: str, value: Any) -> None:
        check = self._checks.get((method, kind))
        assert check is not None, f"the schema has no {kind} of {method}"
        found = list(check.iter_errors(value))
        assert not found, f"{kind} of {method}: {found[0].message} in {json.dumps(value)[:500]}"


@dataclass
class Judge:
    """Reads frames of both sides in order and holds each against the schema."""

    schema: Schema
    asked: dict[tuple[str, Any], str] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)

    def frame(self, side: str, message: dict[str, Any], *, strict: bool = True) -> None:
        """``side`` sent ``message``. Requests of a client under test need not be ``strict``."""
        assert message.get("jsonrpc") == "2.0", message
        other = "agent" if side == "client" else "client"
        if "method" in message:
            method = message["method"]
            self.counted[method] = self.counted.get(method, 0) + 1
            if "id" in message:
                self.asked[side, message["id"]] = method
            if strict:
                self.schema.params(method, message.get("params"))
            return
        method = self.asked.get((other, message["id"]), "")
        if "error" in message:
            self.schema.error(message["error"])
        else:
            assert method, f"an answer to nothing: {message}"
            self.schema.result(method, message["result"])


def recorded(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """What ``main`` wrote: who sent it, and the frame."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [(line["from"], json.loads(line["line"])) for line in lines]


def judge(frames: Iterable[tuple[str, dict[str, Any]]]) -> Judge:
    """Judge all of them."""
    found = Judge(Schema())
    for side, message in frames:
        found.frame(side, message)
    return found


def main(record: str, command: list[str]) -> int:
    """Run ``command`` between our stdin and stdout."""
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    signal.signal(signal.SIGTERM, lambda number, frame: child.terminate())
    lock = threading.Lock()

    def note(side: str, line: bytes) -> None:
        entry = json.dumps({"from": side, "line": line.decode().rstrip("\n")})
        with lock, Path(record).open("a") as file:
            file.write(entry + "\n")

    def onward() -> None:
        assert child.stdin is not None
        while line := sys.stdin.buffer.readline():
            note("client", line)
            child.stdin.write(line)
            child.stdin.flush()
        child.stdin.close()

    threading.Thread(target=onward, daemon=True).start()
    while line := child.stdout.readline():
        note("agent", line)
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    return child.wait()


if __name__ == "__main__":
    os._exit(main(sys.argv[1], sys.argv[2:]))
