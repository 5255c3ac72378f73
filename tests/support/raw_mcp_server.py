"""An MCP server over stdio that says exactly what a test wrote down.

raw_mcp_server.py JSON      with "tools", and maybe "result", "cursor" and "version"
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main(text: str) -> None:
    """Answer the requests that come; a call without a result gets its arguments back."""
    says: dict[str, Any] = json.loads(text)
    for line in sys.stdin:
        message = json.loads(line)
        method, parameters = message.get("method"), message.get("params") or {}
        if method == "initialize":
            result: Any = {
                "protocolVersion": says.get("version", parameters["protocolVersion"]),
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "raw", "version": "1"},
            }
        elif method == "tools/list":
            cursor = {"nextCursor": says["cursor"]} if "cursor" in says else {}
            result = {"tools": says["tools"], **cursor}
        elif method == "tools/call":
            given = json.dumps(parameters.get("arguments"), sort_keys=True)
            result = says.get("result") or {"content": [{"type": "text", "text": given}]}
        else:
            continue
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
