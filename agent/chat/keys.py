"""The keys of the chat, each bound to a method of what they act on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from prompt_toolkit.filters import Condition
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys

if TYPE_CHECKING:
    from agent.control.approvals import Verdict

_ANSWERS: dict[str, Verdict] = {
    "y": "allow",
    "a": "allow_always",
    "n": "reject",
    "v": "reject_always",
}


class Acting(Protocol):
    """Interface that the keys act on."""

    def asks(self) -> bool:
        """Tell whether a call waits for approval and nothing was typed."""
        ...

    def decide(self, verdict: Verdict) -> None:
        """Answer the call that waits."""
        ...

    def escape(self) -> None:
        """Stop what runs; when idle and pressed twice, edit the last message."""
        ...

    def interrupt(self) -> None:
        """Clear the input; pressed twice, leave."""
        ...

    def leave(self) -> None:
        """Leave."""
        ...

    def next_mode(self) -> None:
        """Go on to the next mode."""
        ...

    def toggle_thinking(self) -> None:
        """Show or hide thinking."""
        ...

    def unfold(self) -> None:
        """Print the last long output in full."""
        ...

    def paste(self, text: str) -> None:
        """Insert pasted text, folded if it is long."""
        ...


def make_keys(acting: Acting) -> KeyBindings:
    """Return the bindings."""
    keys = KeyBindings()
    asks = Condition(acting.asks)
    for letter, verdict in _ANSWERS.items():

        @keys.add(letter, filter=asks, eager=True)
        def _(event: KeyPressEvent, verdict: Verdict = verdict) -> None:
            acting.decide(verdict)

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        if (state := event.current_buffer.complete_state) and state.current_completion:
            event.current_buffer.complete_state = None
        elif event.current_buffer.text.strip():
            event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("escape")
    def _(event: KeyPressEvent) -> None:
        acting.escape()

    @keys.add("c-c")
    @keys.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        acting.interrupt()

    @keys.add("c-d")
    def _(event: KeyPressEvent) -> None:
        if not event.current_buffer.text:
            acting.leave()

    @keys.add("s-tab")
    def _(event: KeyPressEvent) -> None:
        acting.next_mode()

    @keys.add("c-t")
    def _(event: KeyPressEvent) -> None:
        acting.toggle_thinking()

    @keys.add("c-o")
    def _(event: KeyPressEvent) -> None:
        acting.unfold()

    @keys.add(Keys.BracketedPaste)
    def _(event: KeyPressEvent) -> None:
        acting.paste(event.data.replace("\r\n", "\n").replace("\r", "\n"))

    return keys
