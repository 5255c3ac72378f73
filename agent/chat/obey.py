"""Implementation of the slash commands. Everything here runs on the session's thread."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.chat.chat_session import ChatSession
from agent.chat.typed_lines import Line
from agent.errors import ConfigError
from agent.run.session_tree import tree_lines
from agent.run.thinking_change import set_effort, set_thinking
from agent.run.try_lines import try_lines
from agent.settings.load import check_settings

INIT = (
    "Look at this repository and write AGENTS.md at its top: what it is, how to build it, how to "
    "run its tests, where things are, and the habits a change must keep. Forty lines at most."
)


@dataclass(frozen=True)
class Said:
    """Result of a command: a remark, and before it the model's words or a patch."""

    remark: str
    words: str = ""
    patch: str = ""


class Obey:
    """Runs commands against the session."""

    def __init__(self, session: ChatSession) -> None:
        self._chat = session

    def run(self, line: Line) -> Said:
        """Do what the command says. Raises ``AgentError``, ``SandboxError``, ``ModelError``."""
        said: str | Said = getattr(self, f"_{line.command}")(line.rest)
        return Said(said) if isinstance(said, str) else said

    def _new(self, rest: str) -> str:
        return f"new session {self._chat.begin(None).id}"

    def _resume(self, rest: str) -> str:
        session = self._chat.begin(rest)
        return f"session {session.id}, after step {len(session.steps)}"

    def _sessions(self, rest: str) -> str:
        rows = self._chat.saved_here()
        lines = [f"{s.id}  {s.status:<12} {_short(s.info.task)}" for s in rows]
        return "\n".join(lines) or "no session of this repository is saved yet"

    def _rewind(self, rest: str) -> str:
        if rest and not rest.isdigit():
            raise ConfigError(f"/rewind takes the number of a step, not {rest!r}")
        return self._back(int(rest) if rest else None)

    def _undo(self, rest: str) -> str:
        return self._back(None)

    def _back(self, step: int | None) -> str:
        session = self._chat.session
        turns = session.turns()
        if step is None and not turns:
            raise ConfigError("there is no turn to take back")
        step = turns[-1] if step is None else step
        cost, kept = session.rewind(step)
        paid = f"{cost:,} tokens prefilled" if cost else "no token computed again"
        left = f"; not taken back, since you changed them: {', '.join(kept)}" if kept else ""
        return f"back at the end of step {step} ({paid}){left}"

    def _tree(self, rest: str) -> str:
        if not rest:
            return "\n".join(tree_lines(self._chat.session, self._chat.store.sessions()))
        name, _, step = rest.partition(":")
        if step and not step.isdigit():
            raise ConfigError(f"/tree takes ID or ID:STEP, not {rest!r}")
        if not self._chat.session.id.startswith(name):
            self._chat.begin(name)
        session = self._chat.session
        if step:
            return f"session {session.id}: {self._back(int(step))}"
        return f"session {session.id}, after step {len(session.steps)}"

    def _fork(self, rest: str) -> str:
        forked = self._chat.session.fork(self._chat.store)
        return f"forked: /resume {forked.id} goes on with the second session"

    def _btw(self, rest: str) -> Said:
        if not rest:
            raise ConfigError("/btw takes a question")
        said, shared = self._chat.aside(rest)
        remark = f"asked aside: {shared:,} tokens not computed again, the session is as it was"
        return Said(remark, words=said)

    def _try(self, rest: str) -> Said:
        number, _, text = rest.partition(" ")
        if not number.isdigit() or not text.strip():
            raise ConfigError("/try takes a number and a message: /try 3 make the tests pass")
        context = self._chat.session.used
        tries = self._chat.attempt(text.strip(), int(number))
        prefilled = sum(one.cost.prefilled_tokens for one in tries)
        shared = f"{context * len(tries):,} tokens not computed again, {prefilled:,} prefilled"
        return Said(f"{shared}; /apply NUMBER takes one", patch="\n".join(try_lines(tries)))

    def _apply(self, rest: str) -> str | Said:
        tries = self._chat.tries
        if not tries:
            raise ConfigError("there are no tries; your files follow the session by themselves")
        if not rest:
            return Said("/apply NUMBER takes one", patch="\n".join(try_lines(tries)))
        chosen = next((one for one in tries if str(one.number) == rest), None)
        if chosen is None or chosen.error:
            raise ConfigError(f"there is no try {rest} to take; there are 1 to {len(tries)}")
        session = self._chat.take(chosen)
        return f"took try {chosen.number}: session {session.id}, after step {len(session.steps)}"

    def _compact(self, rest: str) -> str:
        session = self._chat.session
        if not session.steps:
            raise ConfigError("there is nothing to compact yet")
        session.compacts = True
        return "with your next message the context is given up for a summary"

    def _context(self, rest: str) -> str:
        session = self._chat.session
        size = session.model.engine.context_length
        share = 100 * session.used / size
        return f"{session.used:,} of {size:,} tokens ({share:.0f} %), {len(session.steps)} steps"

    def _thinking(self, rest: str) -> str:
        set_thinking(self._chat.session, rest)
        changed = {**self._chat.settings.model_dump(), "thinking": rest}
        self._chat.settings = check_settings(changed, [("/thinking", {"thinking": rest})])
        return f"thinking is now {rest}"

    def _effort(self, rest: str) -> str:
        if not rest:
            settings = self._chat.session.settings
            level = "none" if settings.thinking == "off" else settings.effort
            return f"effort {level}; /effort none|low|medium|high|xhigh|auto changes it"
        said = set_effort(self._chat.session, rest)
        now = self._chat.session.settings
        update = {"thinking": now.thinking, "effort": now.effort}
        self._chat.settings = self._chat.settings.model_copy(update=update)
        return said

    def _check(self, rest: str) -> str:
        run = self._chat.session.check(rest or None)
        return "" if run.exit_code is not None else "the check did not end"

    def _model(self, rest: str) -> str:
        if not rest:
            return f"{self._chat.settings.model}; /model NAME goes on with another one"
        engine = self._chat.use_model(rest).model.engine
        return f"{engine.name}, context {engine.context_length:,} tokens"

    def _tools(self, rest: str) -> str:
        schemas = self._chat.session.registry.schemas()
        return "\n".join(str(schema["function"]["name"]) for schema in schemas)

    def _diff(self, rest: str) -> Said:
        patch = self._chat.session.changes()
        return Said("" if patch else "nothing is changed", patch=patch)

    def _permissions(self, rest: str) -> str:
        rules = self._chat.policy.rules
        lines = [
            f"{kind} {rule}"
            for kind, several in (("allow", rules.allow), ("ask", rules.ask), ("deny", rules.deny))
            for rule in several
        ]
        return "\n".join(lines) or "there are no rules; the mode says what is asked for"

    def _mcp(self, rest: str) -> str:
        names = [server.name for server in self._chat.policy.servers]
        return "\n".join(names) or "no MCP server is configured"

    def _init(self, rest: str) -> str:
        return self._chat.turn(INIT)

    def _export(self, rest: str) -> str:
        if not rest:
            raise ConfigError("/export takes the name of a file to write")
        return self._chat.export(Path(rest).expanduser())


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"
