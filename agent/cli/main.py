"""The entry of the ``agent`` command: sees that the right packages would be imported, then runs.

Nothing but the standard library is imported before that is known.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from agent.errors import AgentError, BrokenInstall

SIBLINGS = ("model", "kernels", "tools", "sandboxes", "evals")


def main() -> NoReturn:
    """Run the console script. Always ends the process with an exit code, never with a traceback."""
    try:
        open_closed_streams()
        say_at_once(sys.argv[1:])
        check_siblings()
        find_home()
        code = run(sys.argv[1:])
    except AgentError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 (agent.output is not safe yet)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code. This imports the siblings."""
    from agent.cli.quick_chat import start_chat, starts_chat
    from agent.cli.quiet import quieten

    quieten()
    if starts_chat(arguments):
        return start_chat(arguments)
    from agent.cli.app import call

    return call(arguments)


def open_closed_streams() -> None:
    """Let the descriptors 0 to 2 that came closed be /dev/null.

    Else the next file that is opened gets one of these numbers, and a program that is started with
    it takes it for its own stdin, stdout or stderr.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def say_at_once(arguments: list[str]) -> None:
    """Show at a terminal that a run has begun, before what takes half a second is imported."""
    runs = arguments[:1] in (["solve"], ["resume"], ["fork"])
    if runs and not {"-h", "--help"} & set(arguments) and sys.stderr.isatty():
        sys.stderr.write("starting …\r")
        sys.stderr.flush()


def find_home() -> None:
    """Let HOME be the folder for state where nothing else says what it is.

    A user id without a name has none. With the XDG variables nothing of it is needed, but libraries
    ask for it; without them the first that needs it fails with a line that says so.
    """
    try:
        Path.home()
    except RuntimeError:
        kinds = ("CONFIG", "CACHE", "STATE")
        folders = [os.environ.get(f"XDG_{kind}_HOME", "") for kind in kinds]
        if all(folder.startswith("/") for folder in folders):
            os.environ["HOME"] = folders[-1]


def check_siblings() -> None:
    """Make sure that the packages beside ``agent`` are the ones that would be imported.

    ``tools`` and ``kernels`` are common names: another project's folder on ``PYTHONPATH``, or a
    distribution of that name, would be imported instead. Raises ``BrokenInstall``.
    """
    home = Path(__file__).resolve().parents[2]
    for name in SIBLINGS:
        found = find_spec(name)
        origin = found.origin if found is not None else None
        if origin is None or Path(origin).resolve().parent.parent != home:
            where = Path(origin).parent if origin else "nowhere"
            raise BrokenInstall(
                f"the package {name!r} is found at {where}, not beside agent in {home}; "
                "install tenuto into an environment of its own and unset PYTHONPATH"
            )
