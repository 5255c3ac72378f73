"""The chat's start: its prompt stands before typer, pydantic or torch are imported.

The command line is looked at twice. Here for what the screen needs; behind the prompt as a whole,
with every flag checked, by the same parser as all commands.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from agent.chat.wanted import MODES, Opening, Wanted
from agent.cli.output import at_terminal
from agent.errors import ConfigError

_NO_CHAT = {"-h", "--help", "--version"}


def with_chat(arguments: list[str]) -> list[str]:
    """Return the command line with the command ``chat`` where a person left it out.

    ``agent`` alone at a terminal is a chat, and so is one that begins with a flag of the chat's or
    with several words in quotes: its first message.
    """
    first = arguments[0] if arguments else ""
    if not first:
        return ["chat"] if at_terminal() else []
    own = first.startswith("-") and first not in _NO_CHAT
    return ["chat", *arguments] if own or len(first.split()) > 1 else arguments


def starts_chat(arguments: list[str]) -> bool:
    """Tell whether this command line is a chat that can begin at once."""
    words = with_chat(arguments)
    return words[:1] == ["chat"] and at_terminal() and not _NO_CHAT & set(words)


def start_chat(arguments: list[str]) -> int:
    """Run the chat that the command line asks for; return the exit code. Nothing is raised."""
    try:
        from agent.chat.terminal_chat import chat
        from sandboxes.paths import config_dir, private_dir, state_dir

        words = with_chat(arguments)[1:]
        history = private_dir(state_dir()) / "chat_history"
        plain = "--plain" in words
        return chat(opening(words), plain=plain, history=history, own=config_dir())
    except (Exception, KeyboardInterrupt) as error:
        from agent.cli.failure import tell

        return tell(error).exit_code


def opening(words: list[str]) -> Opening:
    """Return what can be seen of the chat's ``words`` without knowing all its flags."""
    repo, mode = ".", "ask"
    for word, after in pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if name in ("--repo", "-r"):
            repo = value if equals else after
        elif name == "--mode":
            mode = value if equals else after
    return Opening(Path(repo), mode if mode in MODES else "ask", lambda: read(words))


def read(words: list[str]) -> Wanted:
    """Read the chat's command line as a whole. Raises ``ConfigError``."""
    # Only now: this imports every command's flags.
    import typer

    from agent.cli.chat import chat_only

    usage_error: type[Exception] = typer.BadParameter.__mro__[1]
    try:
        wanted = chat_only(words, prog_name="agent chat", standalone_mode=False)
    except usage_error as error:
        message = " ".join(str(getattr(error, "format_message", error.__str__)()).split())
        raise ConfigError(f"{message} (see agent chat --help)") from error
    assert isinstance(wanted, Wanted)
    return wanted
