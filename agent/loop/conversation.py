"""The model's side of a run: new messages go in as tokens, a turn comes out.

Tokens are only appended. What was sampled is parsed for the loop's sake but stays in the session as
it is; it is never decoded and encoded again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.events import (
    CallWriting,
    ContentDelta,
    Listener,
    Notice,
    Prefilled,
    ThinkingDelta,
    nobody,
)
from agent.loop.constrained import ConstrainedCalls
from agent.loop.looking import look_at
from agent.loop.thinking_bound import CLOSED_NOTICE, CLOSING, NO_LIMITS, ThinkingBound, ThinkLimits
from agent.loop.turn_reader import TurnReader
from agent.types import Prompt, Spans, Step, ThinkingEnd, TurnEnd
from model.chat.chat_format import ChatFormat
from model.chat.turn_events import CallStarted, ContentText, ThinkingText, TurnEvent
from model.messages import Message
from model.sampling import SamplingParams
from model.session import Progress, Session, Snapshot
from model.usage import Usage
from sandboxes.stop import Stop
from tools.types import Observation


@dataclass(frozen=True)
class Turn:
    """The model's words in one turn, as sampled and as read."""

    message: Message
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: TurnEnd
    forced: tuple[int, ...] = ()
    closed: ThinkingEnd = ""
    masked_logprobs: tuple[float, ...] = ()
    spans: tuple[Mapping[str, Spans], ...] = ()

    @classmethod
    def of(cls, step: Step) -> Turn:
        """Return the turn that ``step`` keeps."""
        return cls(
            step.message,
            step.token_ids,
            step.logprobs,
            step.ended,
            step.forced,
            step.closed,
            step.masked_logprobs,
            step.spans,
        )


class _Cancelled(Exception):
    """Carries a stop out of a prefill."""


class Conversation:
    """One session spoken to in messages. ``stop`` is looked at before each sampled token."""

    def __init__(
        self,
        session: Session,
        chat: ChatFormat,
        tools: Sequence[Mapping[str, Any]],
        sampling: SamplingParams,
        *,
        thinking: bool = True,
        listen: Listener = nobody,
        stop: Stop | None = None,
        constrained: ConstrainedCalls | None = None,
    ) -> None:
        self.session = session
        self._chat = chat
        self._tools = tools
        self._sampling = sampling
        self._thinking = thinking
        self._listen = listen
        self.stop = stop or Stop()
        self._constrained = constrained
        self._closed: bool | None = None
        self._open_thinking = False
        self._unfinished: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """The number of tokens that the session holds."""
        return self.session.length

    def look(self, seen: Observation) -> Observation:
        """Return an observation with its pictures read, for a model with eyes; else without."""
        return look_at(seen, self._listen, sees=self._chat.sees)

    def take_in(self, messages: Sequence[Message]) -> None:
        """Make the pictures of ``messages``, whose ids are known already, known to the model."""
        self._chat.take_in(messages)

    def adopt(self, session: Session) -> None:
        """Go on with ``session``, in which nothing was said yet; the one before is closed."""
        if session is not self.session:
            session.quotes = self.session.quotes
            self.session.close()
        self.session = session
        self._closed, self._open_thinking, self._unfinished = None, False, ()

    def offer(self, text: str) -> None:
        """Let drafts be copied from ``text``, which the model will perhaps quote."""
        self.session.quotes.add(self._chat.encode_text(text))

    def prompt(
        self, messages: Sequence[Message], *, by_user: bool = False, before: Usage | None = None
    ) -> Prompt:
        """Return ``messages`` as a prompt that goes after what the session holds."""
        ids = tuple(self.encode(messages))
        return Prompt(tuple(messages), ids, ids, before=before, by_user=by_user)

    def add_words(self, prompt: Prompt, said: Message) -> Prompt:
        """Return ``prompt``, of which a part may have run, with ``said`` at its end."""
        return dataclasses.replace(
            prompt,
            messages=(*prompt.messages, said),
            ids=tuple(self.lengthened(prompt.ids, said)),
            written=tuple(self.lengthened(prompt.written, said)),
            by_user=True,
        )

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids that ``messages`` add to the session, up to the next turn's start."""
        if self._closed is None:
            return self._chat.begin(messages, self._tools, self._thinking)
        return self._chat.append(
            self._closed, messages, self._thinking, open_thinking=self._open_thinking
        )

    def whole(self, messages: Sequence[Message], *, preserve_thinking: bool) -> list[int]:
        """Return the ids of a new conversation of ``messages``, up to the next turn's start.

        Raises ``ValueError`` if the template refuses them.
        """
        return self._chat.begin(
            messages, self._tools, self._thinking, preserve_thinking=preserve_thinking
        )

    def fresh(self) -> Conversation:
        """Return a conversation of the same session that knows nothing yet, only to encode with."""
        return Conversation(
            self.session, self._chat, self._tools, self._sampling, thinking=self._thinking
        )

    def lengthened(self, ids: Sequence[int], message: Message) -> list[int]:
        """Return a prompt's ``ids`` with the user's ``message`` before the next turn's start."""
        more = self._chat.append(True, [message], self._thinking)
        cut = self._chat.turn_cut(ids) - 1
        return [*ids[:cut], *more[more.index(ids[cut]) :]]

    def aside(self, messages: Sequence[Message], max_tokens: int) -> tuple[str, Usage]:
        """Return the model's answer to ``messages``, without reasoning, and the usage after it.

        The session stays as it is. Raises ``ContextFull`` if there is no room for the question.
        """
        closed, open_thinking = bool(self._closed), self._open_thinking
        ids = self._chat.append(closed, messages, False, open_thinking=open_thinking)
        fork = self.session.fork()
        try:
            fork.extend(ids, on_progress=self._prefilled)
            parser = self._chat.parser(self._tools, False)
            for token in fork.generate(
                self._sampling,
                max_tokens=max_tokens,
                stop_ids=self._chat.stop_ids,
                should_stop=self.stop.is_set,
            ):
                parser.push(token.id)
            return parser.finish().content, fork.usage
        except _Cancelled:
            return "", fork.usage
        finally:
            fork.close()

    def recall(self, turn_ids: Sequence[int], *, thinking: bool, go_on: bool = False) -> None:
        """Take the session to end with the turn ``turn_ids``, sampled earlier with ``thinking``.

        With ``go_on`` the next ``speak`` continues that turn.
        """
        parser = self._chat.parser(self._tools, thinking)
        for token_id in turn_ids:
            parser.push(token_id)
        self._unfinished = tuple(turn_ids) if go_on else ()
        parser.finish()
        self._closed = bool(turn_ids) and turn_ids[-1] in self._chat.stop_ids
        self._open_thinking = parser.in_thinking

    def hear(self, ids: Sequence[int], mark: Callable[[Session], None] | None = None) -> bool:
        """Prefill ``ids``; False if it was cancelled. Then, and if it raises, nothing has changed.

        ``mark`` is given the session when all but the next turn's start is there
        (``ChatFormat.turn_cut``), if that is anything.
        Raises ``ContextFull`` if they do not fit.
        """
        cut = self._chat.turn_cut(ids) if mark else 0
        tell: Progress | None = self._prefilled
        try:
            if mark is not None and cut + self.tokens:
                self.session.extend(ids[:cut], on_progress=tell)
                mark(self.session)
                # The turn's start is a few tokens, at which nothing stops half way.
                tell = None
            self.session.extend(ids[cut:], on_progress=tell)
        except _Cancelled:
            return False
        return True

    def speak(self, max_tokens: int, thinking: ThinkLimits = NO_LIMITS) -> Turn:
        """Sample one turn of at most ``max_tokens`` tokens, telling the listener as it comes."""
        reader = self._reader(thinking)
        ids: list[int] = []
        logprobs: list[float] = []
        masked: list[float] = []
        forced: list[int] = []
        for token in self.session.generate(
            self._sampling,
            max_tokens=max_tokens,
            stop_ids=self._chat.stop_ids,
            should_stop=self.stop.is_set,
            steering=reader,
        ):
            if token.forced:
                forced.append(len(ids))
            ids.append(token.id)
            logprobs.append(token.logprob)
            masked.append(token.logprob if token.masked_logprob is None else token.masked_logprob)
            for event in reader.push(token.id):
                self._tell(event)
            if reader.repeats:
                self._listen(Notice(f"the model repeats itself: stopped after {len(ids):,} tokens"))
                break
        message = reader.parser.finish()
        self.session.count(thinking_tokens=reader.thinking_tokens)
        self._closed = bool(ids) and ids[-1] in self._chat.stop_ids
        self._open_thinking = reader.parser.in_thinking
        ended: TurnEnd = "stop" if self._closed else "length"
        if not self._closed and len(ids) < max_tokens and self.stop.is_set():
            ended = "interrupted"
        closed = reader.bound.closed
        if closed:
            self._listen(Notice(CLOSED_NOTICE[closed].format(tokens=reader.thinking_tokens)))
        return Turn(
            message,
            tuple(ids),
            tuple(logprobs),
            ended,
            tuple(forced),
            closed,
            tuple(masked) if self._constrained else (),
            reader.spans(message.tool_calls, logprobs),
        )

    def _reader(self, thinking: ThinkLimits) -> TurnReader:
        """Return the reader of the next turn, which has read what is there of it already."""
        parser = self._chat.parser(self._tools, self._thinking)
        unfinished, self._unfinished = self._unfinished, ()
        spent = self.session.usage.thinking_tokens
        bound = ThinkingBound(
            {why: self._chat.closing(words) for why, words in CLOSING.items()},
            self._chat.closing(""),
            self._chat.decoder(),
        )
        calls = None
        if self._constrained is not None:
            calls = self._constrained.begin(thinking=parser.in_thinking)
        reader = TurnReader(parser, bound, self._chat.no_thinking, calls)
        reader.begin(thinking, spent, unfinished)
        return reader

    def take_back(self, point: Snapshot) -> None:
        """Take the last turn back: the session is at ``point`` again, before it was spoken.

        The next ``speak`` samples another turn.
        """
        self.session.restore(point, redraw=True)

    def _prefilled(self, done: int, total: int) -> None:
        self._listen(Prefilled(done, total))
        if done < total and self.stop.is_set():
            raise _Cancelled

    def _tell(self, event: TurnEvent) -> None:
        if isinstance(event, ThinkingText):
            self._listen(ThinkingDelta(event.text))
        elif isinstance(event, ContentText):
            self._listen(ContentDelta(event.text))
        elif isinstance(event, CallStarted):
            self._listen(CallWriting(event.name))
