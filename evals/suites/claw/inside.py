"""Run inside the container of a task's services: start them, call them, ask for their audits.

It is handed to the container's Python as text, so it imports the standard library alone. Its first
argument is what to do, the variable ``TENUTO_SPEC`` holds a JSON object with the rest, and it
prints one JSON object.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

MAX_BODY = 2_000_000
CALL_TIMEOUT_S = 30.0
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def request(method: str, url: str, body: Any = None, timeout: float = CALL_TIMEOUT_S) -> Any:
    """Return the status and the JSON body of a request. Raises ``OSError``, ``ValueError``."""
    headers = {"X-Health-Check": "1"} if body is None else {"Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data=data, headers=headers, method=method)
    # No proxy: a service is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked, timeout=timeout) as answer:
            return answer.status, json.loads(answer.read(MAX_BODY) or b"null")
    except urllib.error.HTTPError as error:
        text = error.read(MAX_BODY)
        try:
            return error.code, json.loads(text or b"null")
        except ValueError:
            return error.code, {"error": text.decode("utf-8", "replace")[:2000]}


def healthy(service: dict[str, Any]) -> bool:
    """Return whether a service answers its health check."""
    method = str(service.get("health_check_method") or "POST").upper()
    try:
        return bool(request(method, service["health_check"], timeout=2.0)[0] < 500)
    except (OSError, ValueError):
        return False


def start(service: dict[str, Any]) -> str:
    """Start a service and wait until it is healthy; return what is wrong, "" if nothing."""
    name, limit = service["name"], float(service.get("ready_timeout") or 10)
    command = shlex.split(service["command"])
    if command and command[0] in ("python", "python3"):
        command[0] = sys.executable
    own = {k: v for k, v in os.environ.items() if k.lower() not in _PROXIES}
    own.pop("TENUTO_SPEC", None)
    own.update({key: str(value) for key, value in (service.get("env") or {}).items()})
    log = Path(f"/tmp/{name}.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=own, stdout=output, stderr=output, start_new_session=True
        )
    # Several services share a processor that other attempts use too.
    deadline = time.monotonic() + max(limit, 60.0)
    while time.monotonic() < deadline:
        if healthy(service):
            return ""
        if process.poll() is not None:
            said = " ".join(log.read_bytes()[-2000:].decode("utf-8", "replace").split())
            return f"the service {name} ended with exit code {process.returncode}: {said[-300:]}"
        time.sleep(0.1)
    process.kill()
    return f"the service {name} was not ready in time"


def start_all(spec: dict[str, Any]) -> dict[str, Any]:
    """Start the services in order, up to the first that does not come up."""
    for service in spec["services"]:
        if wrong := start(service):
            return {"error": wrong}
    return {}


def call(spec: dict[str, Any]) -> dict[str, Any]:
    """Call one tool's address and time it; a failure is a status of its own."""
    begun = time.monotonic()
    try:
        status, body = request(spec["method"], spec["url"], spec["body"])
    except (OSError, ValueError) as error:
        status, body = 500, {"error": str(error)}
    return {"status": status, "body": body, "latency_ms": (time.monotonic() - begun) * 1000}


def audit(spec: dict[str, Any]) -> dict[str, Any]:
    """Return what every service recorded; one that does not tell is left out, as the makers do."""
    found = {}
    for service in spec["services"]:
        reset = service.get("reset_endpoint")
        if not reset:
            continue
        try:
            body = request("GET", reset.rsplit("/reset", 1)[0] + "/audit", timeout=5.0)[1]
        except (OSError, ValueError):
            continue
        found[service["name"]] = body
    return found


if __name__ == "__main__":
    doing = {"start": start_all, "call": call, "audit": audit}[sys.argv[1]]
    sys.stdout.write(json.dumps(doing(json.loads(os.environ["TENUTO_SPEC"]))) + "\n")
