"""Change how much an open session thinks, without a change to what it was begun with."""

from __future__ import annotations

from agent.errors import ConfigError
from agent.run.build import settle_thinking
from agent.run.open_session import OpenSession
from agent.run.recall import recall_turn
from model.chat.effort import read_effort, unknown_effort

WAYS = ("preserve", "drop", "off", "auto")


def set_thinking(session: OpenSession, thinking: str) -> None:
    """Change how the next turns reason. Raises ``ConfigError`` for a word that is none."""
    if thinking not in WAYS:
        raise ConfigError(f"{thinking!r} is no way of thinking; use preserve, drop or off")
    _change(session, thinking=thinking)


def set_effort(session: OpenSession, word: str) -> str:
    """Change how much the next turns think, and return what was understood, as one line.

    What the session was begun with is not rewritten: where the template writes an effort at the
    beginning, the model is told of the new one with the user's next message.
    """
    level = read_effort(word) or "auto"
    if level == "none":
        _change(session, thinking="off", effort="auto")
        return "the model answers without thinking from now on"
    off = session.settings.thinking == "off"
    _change(session, effort=level, **({"thinking": "preserve"} if off else {}))
    effort = session.model.chat.at_effort(level).effort
    session.prompter.effort = effort if session.steps else ""
    if line := unknown_effort(word):
        return line
    if not effort:
        knows = "its own counts" if level == "auto" else "it knows no efforts, so nothing changes"
        return f"effort {level}: the chat template decides, {knows}"
    return f"effort {level}: {effort} in the template's words, from your next message on"


def _change(session: OpenSession, **settings: str) -> None:
    """Go on with other settings about thinking."""
    session.load()
    parts = session.parts
    changed = parts.settings.model_copy(update=settings)
    parts.settings = settle_thinking(changed, parts.model.chat)
    parts.update(thinking=parts.settings.thinking, settings=parts.settings.kept())
    parts.conversation = parts.speaker(parts.conversation.session)
    if session.steps:
        recall_turn(parts.conversation, parts.history)
