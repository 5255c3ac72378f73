"""Reads a generated turn as it comes: reasoning, visible text, and XML tool calls.

The format is Qwen3.5's and later::

    reasoning</think>

    text<tool_call>
    <function=NAME>
    <parameter=P>
    value, any number of lines
    </parameter>
    </function>
    </tool_call><|im_end|>

Nothing is escaped in it, so a value may hold any of this markup. What ends what is decided by place
and by what follows, never by the mere words:

* ``</parameter>`` ends a value if it starts a line and the next thing is a parameter, the end of
  the function or the call, or the end of the turn. Code that mentions it inside a line, or an XML
  file with such a line followed by anything else, survives. A value that starts on the line of its
  tag (``<parameter=P>value</parameter>``) ends at the first one with such a follower.
* A value left open is ended by a ``</function>`` or ``</tool_call>`` line with which the call
  really ends, or by a line that opens a parameter of this tool that has not been given. If it holds
  an end tag nonetheless, the call is malformed: better refused than run with markup in a value.
* A value may spell whole calls: a ``<tool_call>`` that a function follows, or a ``<function=NAME>``
  line, belongs to the value, and so does everything up to its end tag. A call whose own end tags
  are missing before the next call is refused by the same rule. A value without its end tag that
  ends in something like one is refused too.
* An end tag of a parameter that stands by itself after calls tells that a value was cut short: the
  calls before it are refused.
* Exactly one newline on each side of a value belongs to the markup.
* ``<tool_call>`` inside reasoning ends it if a function follows and no later ``</think>`` closes
  the reasoning; a call that is drafted before it closes is reasoning. ``<function=`` at the start
  of a line counts without ``<tool_call>``. A second ``</think>`` on its line is dropped.
* A call in a closed code fence, an indented block, backticks, quotes, a comment or an element such
  as ``<pre>`` is shown, not made.

A decision is taken only when no continuation could change it, so the outcome does not depend on how
the text was cut into pieces. The parser never raises; what it cannot read as a call becomes a
``ToolCall`` with ``error`` set.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence

from model.chat.calls import CallBuilder
from model.chat.examples import Examples, Undecided, draft_ends, in_opened_draft, is_mention
from model.chat.markup import (
    AFTER,
    CRLF_TAG,
    END_OF_VALUE,
    INDENTED_END,
    LINE_BREAK,
    MARKS,
    OPEN_END_OF_VALUE,
    OPEN_TAG,
    TAG,
    TWICE_ENDED,
    ParserState,
    clean_name,
    past_space,
)
from model.chat.tokenizer import Decoder
from model.chat.turn_events import (
    CallParsed,
    CallRefused,
    CallStarted,
    ContentText,
    ThinkingText,
    TurnEvent,
)
from model.messages import Message, ToolCall, ToolSchema


class TurnParser:
    """Parses one assistant turn. Feed ids to ``push``, then take the message from ``finish``."""

    def __init__(
        self,
        decoder: Decoder,
        tools: Sequence[ToolSchema],
        *,
        stop_ids: frozenset[int],
        in_thinking: bool,
    ) -> None:
        """Start a turn; ``in_thinking`` says that the prompt left a think block open."""
        self._decoder = decoder
        self._call = CallBuilder(tools)
        self._stop_ids = stop_ids
        self._state = ParserState.THINKING if in_thinking else ParserState.CONTENT
        self._text = ""  # the whole turn so far
        self._at = 0  # where the part not yet taken begins
        self._scan = 0  # from _at to here nothing is markup
        self._section = 0  # where the text after the last markup begins
        self._spelled: list[str] = []  # the end tags of calls that the value spells and leaves open
        self._examples = Examples()
        self._stopped = False  # a stop id was sampled
        self._ended = False  # no more text will come
        self._events: list[TurnEvent] = []

        self._thinking: list[str] = []
        self._content: list[str] = []
        self._fresh = True  # nothing but whitespace in this section yet
        self._gap = ""  # whitespace that counts only if more text follows it
        self._token_starts: list[int] = []
        self._thinking_from = 0
        self._closed_thinking_tokens = 0

        self._calls: list[ToolCall] = []

    def push(self, token_id: int) -> list[TurnEvent]:
        """Take one sampled id; a stop id ends the turn. Returns what became known by it."""
        if self._ended:
            return []
        if token_id in self._stop_ids:
            self._stopped = True
            return self._end()
        self._token_starts.append(len(self._text))
        return self.push_text(self._decoder.push(token_id))

    def push_text(self, text: str) -> list[TurnEvent]:
        """Take text instead of ids (for tests and replays)."""
        if text and not self._ended:
            self._text += text
            self._run()
        return self._take_events()

    def finish(self) -> Message:
        """Return the turn as a message. Without a stop id before, a call left open was cut off."""
        if not self._ended:
            self._end()
        return Message(
            "assistant",
            content="".join(self._content),
            thinking="".join(self._thinking),
            tool_calls=tuple(self._calls),
        )

    @property
    def thinking_tokens(self) -> int:
        """Sampled tokens of the reasoning so far, with its tags (but not those of the prompt)."""
        if self._state is not ParserState.THINKING:
            return self._closed_thinking_tokens
        return self._closed_thinking_tokens + self._tokens_between(self._thinking_from, None)

    @property
    def in_thinking(self) -> bool:
        """True while the reasoning is open; after ``finish``, true if it was never closed."""
        return self._state is ParserState.THINKING

    @property
    def in_value(self) -> bool:
        """True while a value of a call is being written."""
        return self._state is ParserState.VALUE

    @property
    def written(self) -> tuple[str, Sequence[int]]:
        """The text so far, and where in it the tokens begin; that of a stop id is left out."""
        return self._text, self._token_starts

    # Driving

    def _end(self) -> list[TurnEvent]:
        self._text += self._decoder.flush()
        self._ended = True
        self._run()
        if self._state in (ParserState.THINKING, ParserState.CONTENT):
            self._speak(len(self._text))
        elif not self._stopped:
            self._add(self._call.cut())
        elif self._state is ParserState.MALFORMED:
            self._add(self._call.without_function())
        else:
            if self._state is ParserState.VALUE:
                self._end_value(len(self._text), closed=False)
            else:
                self._call.between(self._text[self._at :])
            self._end_call(len(self._text))
        return self._take_events()

    def _run(self) -> None:
        steps = {
            ParserState.THINKING: self._in_thinking,
            ParserState.CONTENT: self._in_content,
            ParserState.MALFORMED: self._in_malformed,
            ParserState.FUNCTION: self._in_function,
            ParserState.VALUE: self._in_value,
        }
        try:
            while (found := self._next_mark()) is not None:
                mark, place = found
                if not steps[self._state](mark, place):
                    self._scan = place + 1
        except Undecided:
            pass
        if self._state in (ParserState.THINKING, ParserState.CONTENT):
            self._speak(self._scan)

    def _next_mark(self) -> tuple[str, int] | None:
        """Find the next markup that this state knows, and its place; None if there is none."""
        marks = MARKS[self._state]
        while (place := self._text.find("<", self._scan)) >= 0:
            self._scan = place
            rest = self._text[place : place + 16]
            if self._state is ParserState.VALUE:
                rest = rest.lower()  # for mangled end tags
            for mark in marks:
                if rest.startswith(mark):
                    return mark, place
            if not self._ended and any(mark.startswith(rest) for mark in marks):
                raise Undecided
            self._scan = place + 1
        self._scan = len(self._text)
        return None

    # One method for each state: handles a mark; False if the mark is mere text here.

    def _in_thinking(self, mark: str, place: int) -> bool:
        self._speak(place)
        if mark == "<think>":
            if self._fresh:
                self._skip(place + len(mark))
            return self._fresh
        if mark == "</think>":
            if is_mention(self._text, place, place + len(mark), ended=self._ended):
                return False
            self._leave_thinking(place + len(mark))
            return True
        if not self._follows(place + len(mark), ("<function=",), at_end=False):
            return False
        if draft_ends(self._text, place, ended=self._ended):
            return False
        if self._pass_example(place):
            return True
        self._leave_thinking(place)
        return True

    def _pass_example(self, place: int) -> bool:
        """Go to the end of the example that the call at ``place`` is part of, if it is."""
        shown = self._examples.end(self._text, self._section, place, ended=self._ended)
        if shown is not None:
            self._scan = shown
        return shown is not None

    def _in_content(self, mark: str, place: int) -> bool:
        self._speak(place)
        after = place + len(mark)
        if mark == "<think>":
            if self._fresh:
                self._enter(ParserState.THINKING, after)
                self._thinking_from = place
            return self._fresh
        if mark in ("<tool_call>", "<function="):
            if in_opened_draft(self._text, self._section, place, ended=self._ended):
                return False
            if self._pass_example(place):
                return True
        if mark == "<tool_call>":
            return self._open_call(place, after)
        if not self._starts_line(place):
            return False
        if mark == "<function=":
            return self._open_function(place, bare=True)
        if mark in ("</parameter>", "</function>"):
            return self._refuse_cut_call(after)
        self._skip(after)  # a stray </think> or </tool_call>
        return True

    def _in_malformed(self, mark: str, place: int) -> bool:
        self._add(self._call.without_function())
        self._enter(ParserState.CONTENT, place + len(mark))
        return True

    def _in_function(self, mark: str, place: int) -> bool:
        if mark == "<parameter=":
            tag = self._tag(place)
            if tag is None:
                return False
            self._call.between(self._text[self._at : place])
            self._call.open_parameter(clean_name(tag[1]))
            self._enter(ParserState.VALUE, tag.end())
            self._spelled = []
            return True
        self._call.between(self._text[self._at : place])
        if mark == "</parameter>":
            self._skip(place + len(mark))
        else:
            self._end_call(place + len(mark) if mark == "</function>" else place)
        return True

    def _in_value(self, mark: str, place: int) -> bool:
        after = place + len(mark)
        own_lines = LINE_BREAK.match(self._text, self._at, place) is not None
        if own_lines and self._text[place - 1] != "\n":
            return False
        if mark in ("<tool_call>", "<function="):
            return self._spell_call(mark, place)
        if self._spelled:
            if mark == self._spelled[-1]:
                self._spelled.pop()
            return False
        if mark == "</parameter":
            end = self._end_tag(place, own_lines)
            if end is None or not self._follows(end, AFTER[mark], at_end=self._stopped):
                return False
            after = end
        elif mark == "<parameter=":
            tag = self._tag(place)
            if tag is None or not self._call.awaits(clean_name(tag[1])):
                return False
        elif not self._follows(after, AFTER[mark], at_end=self._stopped):
            return False
        closed = mark == "</parameter"
        self._end_value(place, closed=closed)
        self._enter(ParserState.FUNCTION, after if closed else place)
        return True

    # Calls

    def _open_call(self, place: int, after: int) -> bool:
        """At ``<tool_call>`` in visible text."""
        if self._follows(after, ("<function=",), at_end=False):
            return self._open_function(past_space(self._text, after), bare=False)
        rest = self._text[after:].lstrip()
        if self._ended and "<function=".startswith(rest):  # cut here, or ended with an empty call
            self._enter(ParserState.MALFORMED, after)
            return True
        if self._text[after] == "\n" or rest.startswith("{"):
            self._enter(ParserState.MALFORMED, after)
            return True
        return False  # a mention in prose

    def _spell_call(self, mark: str, place: int) -> bool:
        """Note that the value spells a call that begins at ``place``, if it does."""
        after = place + len(mark)
        if mark == "<function=":
            if self._text[place - 1] != "\n" or not self._is_bare_function(place):
                return False
            self._spelled.append("</function>")
        elif self._follows(after, ("<function=",), at_end=False):
            self._spelled.append("</tool_call>")
            after = past_space(self._text, after)
        self._scan = after + 1
        return True

    def _is_bare_function(self, place: int) -> bool:
        """Tell whether ``<function=`` at ``place`` begins a call without a ``<tool_call>``."""
        tag = self._tag(place)
        if tag is None:
            return False
        following = self._text[tag.end() : tag.end() + 1]
        if not following and not self._ended:
            raise Undecided
        return following in ("", "\r", "\n", "<")

    def _open_function(self, place: int, *, bare: bool) -> bool:
        """At ``<function=``; ``bare`` if no ``<tool_call>`` vouches that it is meant as a call."""
        tag = self._tag(place)
        if tag is None:
            if bare:
                return False
            self._enter(ParserState.MALFORMED, place)
            return True
        if bare and not self._is_bare_function(place):
            return False
        name = clean_name(tag[1])
        self._call.begin(name)
        self._events.append(CallStarted(name))
        self._enter(ParserState.FUNCTION, tag.end())
        return True

    def _tag(self, place: int) -> re.Match[str] | None:
        """Match the whole opening tag at ``place``; return None if there is none."""
        if not self._ended and OPEN_TAG.match(self._text, place):
            raise Undecided
        return TAG.match(self._text, place)

    def _end_value(self, place: int, *, closed: bool) -> None:
        value, opened = self._text[self._at : place], LINE_BREAK.match(self._text, self._at, place)
        if opened is not None:
            value = self._text[opened.end() : place]
            # With CRLF between the tags, the one before the end tag belongs to them too.
            if opened[1] == "\r\n" or CRLF_TAG.match(self._text, place):
                value = value.removesuffix("\r\n")
        value = value.removesuffix("\n")
        if not closed:
            value = INDENTED_END.sub("", value).removesuffix("</parameter>")
            mangled = self._call.ends_mangled(value)
            if mangled or self._spelled or any(mark in value for mark in AFTER):
                self._call.unclosed()
        elif TWICE_ENDED.search(value) and "<parameter" not in value:
            self._call.unclosed()
        self._call.value(value)

    def _end_tag(self, place: int, own_lines: bool) -> int | None:
        """Return the end of a parameter's end tag at ``place``, None if it is none.

        On a line of its own the tag may be mangled: without ``>``, with a space, a name, capitals.
        """
        if not own_lines:
            exact = "</parameter>"
            if not self._ended and exact.startswith(self._text[place:]):
                raise Undecided
            return place + len(exact) if self._text.startswith(exact, place) else None
        if not self._ended and OPEN_END_OF_VALUE.match(self._text, place):
            raise Undecided
        found = END_OF_VALUE.match(self._text, place)
        if found is None and self._ended and (cut := OPEN_END_OF_VALUE.match(self._text, place)):
            return cut.end()
        return found.end() if found else None

    def _refuse_cut_call(self, after: int) -> bool:
        """Refuse the calls before an end tag that stands by itself: a value was cut short.

        Which of them it was cannot be told: the value may have spelled the calls after it.
        """
        if not self._calls:
            return False
        for at, call in enumerate(self._calls):
            refused = self._call.cut_short(call)
            if refused != call:
                self._calls[at] = refused
                self._events.append(CallRefused(refused))
        self._skip(after)
        return True

    def _end_call(self, after: int) -> None:
        self._add(self._call.complete())
        self._enter(ParserState.CONTENT, after)

    def _add(self, call: ToolCall) -> None:
        self._calls.append(call)
        self._events.append(CallParsed(call))

    # Text

    def _speak(self, end: int) -> None:
        """Take the text up to ``end`` as reasoning or content; whitespace around it is dropped."""
        text = self._text[self._at : end]
        self._at = max(self._at, end)
        if self._fresh:
            text = text.lstrip()
        if not text:
            return
        self._fresh = False
        text = self._gap + text
        spoken = text.rstrip()
        self._gap = text[len(spoken) :]
        if spoken and self._state is ParserState.THINKING:
            self._thinking.append(spoken)
            self._events.append(ThinkingText(spoken))
        elif spoken:
            self._content.append(spoken)
            self._events.append(ContentText(spoken))

    def _leave_thinking(self, place: int) -> None:
        self._closed_thinking_tokens += self._tokens_between(self._thinking_from, place)
        self._enter(ParserState.CONTENT, place)

    def _enter(self, state: ParserState, place: int) -> None:
        self._state = state
        self._fresh = True
        said = self._thinking if state is ParserState.THINKING else self._content
        self._gap = "\n\n" if said else ""
        self._skip(place)

    def _skip(self, place: int) -> None:
        self._at = self._scan = self._section = place

    # Looking around

    def _follows(self, place: int, marks: tuple[str, ...], *, at_end: bool) -> bool:
        """Tell whether one of ``marks``, or (``at_end``) the end, comes next after whitespace."""
        place = past_space(self._text, place)
        if any(self._text.startswith(mark, place) for mark in marks):
            return True
        rest = self._text[place : place + 16]
        if not self._ended and any(mark.startswith(rest) for mark in marks):
            raise Undecided
        return at_end and not rest

    def _starts_line(self, place: int) -> bool:
        begin = max(self._section, self._text.rfind("\n", 0, place) + 1)
        return not self._text[begin:place].strip()

    def _tokens_between(self, start: int, end: int | None) -> int:
        starts = self._token_starts
        last = len(starts) if end is None else bisect_left(starts, end)
        return last - bisect_left(starts, start)

    def _take_events(self) -> list[TurnEvent]:
        events, self._events = self._events, []
        return events
