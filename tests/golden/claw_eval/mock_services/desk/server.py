"""A help desk: it lists tickets and closes them, and remembers what was asked."""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TICKETS = json.loads(Path(os.environ["DESK_FIXTURES"]).read_text("utf-8"))
CLOSED: list[str] = []


class Desk(BaseHTTPRequestHandler):
    """Answers the requests of one client."""

    def do_GET(self) -> None:
        """Answer the audit."""
        self.send({"closed": CLOSED})

    def do_POST(self) -> None:
        """Answer a tool."""
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        if self.path == "/desk/close" and body.get("ticket") not in TICKETS:
            self.send({"error": "there is no such ticket"}, 404)
        elif self.path == "/desk/close":
            CLOSED.append(body["ticket"])
            self.send({"closed": body["ticket"]})
        else:
            self.send({"tickets": TICKETS})

    def send(self, data: object, status: int = 200) -> None:
        """Send JSON."""
        text = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "9100"))), Desk).serve_forever()
