"""The slash commands: their names, their help, and what a typed line means."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

BUILT_IN: Mapping[str, tuple[str, str]] = {
    "help": ("", "List the commands and keys"),
    "model": ("[NAME]", "Show the model, or go on with another one"),
    "new": ("", "Begin a new session here"),
    "resume": ("[ID]", "Go on with a saved session of this repository, by default the newest"),
    "sessions": ("", "List the saved sessions of this repository"),
    "rewind": ("[STEP]", "Take back the last turn, or everything after a step; files too"),
    "undo": ("", "Take back the last turn; files too"),
    "tree": ("[ID[:STEP]]", "Show turns and forks, or go to one of them"),
    "fork": ("", "Save a second session that goes on from here"),
    "btw": ("QUESTION", "Ask aside: the session itself never hears of it"),
    "try": ("N MESSAGE", "Answer N times at once on forks; /apply takes one of them"),
    "apply": ("[NUMBER]", "Show the tries, or put one into your files and go on with it"),
    "compact": ("", "Give up the context for a summary, with your next message"),
    "context": ("", "Show what the context holds"),
    "thinking": ("preserve|drop|off", "Change how the model reasons"),
    "effort": ("[LEVEL]", "Show how much the model should think, or change it"),
    "check": ("[COMMAND]", "Run the check; a command given is remembered"),
    "diff": ("", "Show what the session changed"),
    "init": ("", "Let the model write AGENTS.md for this repository"),
    "mcp": ("", "List the MCP servers"),
    "tools": ("", "List the tools"),
    "permissions": ("", "Show mode and rules"),
    "export": ("FILE", "Write the conversation to a Markdown file"),
    "quit": ("", "Leave; the session is saved"),
}
"""Arguments and help of every command that is built in, by name."""

KEYS: Mapping[str, str] = {
    "Enter": "send; while the model works, the message waits",
    "Alt-Enter, Ctrl-J": "begin a new line",
    "Esc": "stop at the next token and keep the work; twice when idle: edit the last message",
    "Shift-Tab": "change the mode: ask, edit, auto, plan",
    "Ctrl-T": "show or hide thinking",
    "Ctrl-O": "show the last long output in full",
    "Ctrl-C": "clear the input; twice: leave",
    "@name": "name a file or folder",
    "!command": "run a command in the sandbox and tell the model",
}
"""What each key does, as ``/help`` shows it."""


@dataclass(frozen=True)
class Line:
    """Meaning of a typed line: a ``command`` with its ``rest``, or a message (no command)."""

    command: str
    rest: str


def read_line(text: str, extensions: Iterable[str] = ()) -> Line:
    """Tell a command from a message.

    Raises ``ValueError`` with one line for a command that does not exist. A path such as
    ``/etc/hosts`` is no command: only the first word counts, and it must be a plain word.
    """
    if not text.startswith("/"):
        return Line("", text)
    name, _, rest = text[1:].partition(" ")
    name = name.strip()
    known = [*BUILT_IN, *extensions]
    if name in known:
        return Line(name, rest.strip())
    if "/" in name or not name:
        return Line("", text)
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean /{near[0]}?" if near else "/help lists them"
    raise ValueError(f"there is no command /{name}; {hint}")


def help_lines(extensions: Mapping[str, str]) -> list[str]:
    """Return the lines of ``/help``."""
    lines = ["Commands"]
    for name, (arguments, text) in BUILT_IN.items():
        lines.append(f"  {f'/{name} {arguments}'.strip():<28} {text}")
    for name, text in extensions.items():
        lines.append(f"  {f'/{name}':<28} {text}")
    lines += ["", "Keys", *(f"  {key:<28} {text}" for key, text in KEYS.items())]
    return lines
