"""The commands that a person types in place of a prompt. They answer; the model hears nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from acp.schema import (
    AvailableCommand,
    AvailableCommandInput,
    AvailableCommandsUpdate,
    UnstructuredCommandInput,
)

from agent.errors import ConfigError
from agent.run.open_session import OpenSession
from agent.run.session_tree import tree_text
from agent.run.thinking_change import set_effort, set_thinking
from agent.run.tries import try_turn
from agent.run.try_lines import try_text
from agent.sessions.store import SessionStore
from agent.settings.extensions import Extensions


@dataclass(frozen=True)
class Command:
    """One command as typed: its name without the slash, and the rest of the line."""

    name: str
    rest: str


_KNOWN: Mapping[str, tuple[str, str]] = {
    "rewind": (
        "Take back the last turn, or all after a step: conversation and files",
        "nothing, or the number of the last step to keep",
    ),
    "fork": ("Make a second session that goes on from here", ""),
    "btw": ("Ask aside: the session itself never hears of it", "a question"),
    "tree": ("Show where each turn began, and the session's forks", ""),
    "try": ("Answer several times at once, on forks that are saved", "a number, and a message"),
    "compact": ("Empty the context with your next message, but for what is needed", ""),
    "thinking": ("How the model reasons from now on", "preserve, drop or off"),
    "effort": ("How much the model thinks from now on", "none, low, medium, high, xhigh or auto"),
    "check": ("Run the check, and remember it if one is given", "nothing, or a command"),
}


def available(own: Extensions) -> AvailableCommandsUpdate:
    """Return the commands, as the editor offers them; ``own`` are those that files hold."""
    known = {**{n: (e.description, "") for n, e in own.found.items()}, **_KNOWN}
    return AvailableCommandsUpdate(
        session_update="available_commands_update",
        available_commands=[
            AvailableCommand(
                name=name,
                description=text,
                input=AvailableCommandInput(root=UnstructuredCommandInput(hint=hint))
                if hint
                else None,
            )
            for name, (text, hint) in known.items()
        ],
    )


def command_in(text: str) -> Command | None:
    """Return the command that ``text`` is; None for anything else, an unknown one too."""
    if not text.startswith("/"):
        return None
    name, _, rest = text[1:].partition(" ")
    return Command(name.strip(), rest.strip()) if name.strip() in _KNOWN else None


def run_command(
    command: Command,
    session: OpenSession,
    store: SessionStore,
) -> str:
    """Do it and say what was done.

    Raises ``ConfigError``, ``StoreError``, ``SandboxError``.
    """
    match command.name:
        case "rewind":
            return _rewind(command.rest, session)
        case "fork":
            return f"Forked: the new session is {session.fork(store).id}."
        case "btw":
            if not command.rest:
                raise ConfigError("/btw takes a question")
            shared = session.used
            return f"{session.aside(command.rest)}\n\n({shared:,} tokens not computed again)"
        case "tree":
            return tree_text(session, store.sessions())
        case "try":
            return _try(command.rest, session, store)
        case "compact":
            if not session.steps:
                raise ConfigError("there is nothing to compact yet")
            session.compacts = True
            return "With your next message the context is emptied, but for what is needed."
        case "thinking":
            set_thinking(session, command.rest)
            return f"Thinking is now {command.rest}."
        case "effort":
            if not command.rest:
                raise ConfigError("/effort takes none, low, medium, high, xhigh or auto")
            return f"{set_effort(session, command.rest)}."
        case _:
            run = session.check(command.rest or None)
            verdict = "The check passes." if run.passed else f"The check fails ({run.exit_code})."
            return verdict if run.exit_code is not None else "The check did not end."


def _try(rest: str, session: OpenSession, store: SessionStore) -> str:
    number, _, text = rest.partition(" ")
    if not number.isdigit() or not text.strip():
        raise ConfigError("/try takes a number and a message: /try 3 make the tests pass")
    tries = try_turn(session, text.strip(), int(number), store)
    shared = f"{session.used * len(tries):,} tokens not computed again"
    return f"{try_text(tries)}\n\n{shared}; load one to go on."


def _rewind(rest: str, session: OpenSession) -> str:
    if rest and not rest.isdigit():
        raise ConfigError(f"/rewind takes the number of a step, not {rest!r}")
    turns = session.turns()
    if not rest and not turns:
        raise ConfigError("there is no turn to take back")
    step = int(rest) if rest else turns[-1]
    cost, kept = session.rewind(step)
    paid = f"{cost:,} tokens prefilled" if cost else "nothing prefilled"
    left = f" Not taken back, since you changed them: {', '.join(kept)}." if kept else ""
    return f"Back at the end of step {step} ({paid}).{left}"
