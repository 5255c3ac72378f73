"""The start and end of ``agent acp``: descriptors, the log, signals, the event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from agent.acp.options import mode_named
from agent.acp.server import Server
from agent.acp.stdio import Frames, take
from agent.settings.load import check_settings
from sandboxes.paths import private_dir, state_dir

LOGS_KEPT = 10
_LEVEL = "TENUTO_LOG"


def run(flags: dict[str, Any], mode: str) -> NoReturn:
    """Serve one client until it goes, then end the process. Raises ``ConfigError`` before."""
    checked = mode_named(mode)
    check_settings(flags, [("the command line", flags)])
    if os.isatty(0):
        sys.stderr.write(
            "agent acp waits for an editor on stdin, which is a terminal here; docs/editors.md "
            "says how an editor starts it. Ctrl-D ends it.\n"
        )
    log = _open_log()
    read, write = take(log)
    # Decoding holds the interpreter's lock; the editor is to hear of a token soon after it came.
    sys.setswitchinterval(0.001)
    asyncio.run(_serve(read, write, flags, checked))
    logging.shutdown()
    # Every session is closed. Taking down torch would cost what a client may not wait for.
    os._exit(0)


async def _serve(read: int, write: int, flags: dict[str, Any], mode: Any) -> None:
    server = Server(Frames(read, write), flags, mode)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, server.stop)
    await server.serve()


def _open_log() -> int:
    """Open a log file of this process's own and return its descriptor. Older ones go."""
    folder = private_dir(state_dir() / "logs")
    for old in sorted(folder.glob("acp-*.log"))[: -(LOGS_KEPT - 1)]:
        with suppress(OSError):
            old.unlink()
    name = time.strftime("acp-%Y%m%d-%H%M%S", time.gmtime()) + f"-{os.getpid()}.log"
    path = Path(folder / name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    level = os.environ.get(_LEVEL, "INFO").upper()
    logging.basicConfig(
        stream=os.fdopen(os.dup(descriptor), "w"),
        level=level if level in logging.getLevelNamesMapping() else "INFO",
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        force=True,
    )
    return descriptor
