"""The turns of an agent that knows the bug, which the embedded model is trained to produce.

The oracle runs the tests and reads the file, names the line it suspects, edits it and runs the
tests again. After a red test it puts the line back and tries another one, so that the model learns
to search; at a green test it submits. Every text here is what the real loop and tools exchange; a
test runs the oracle through them and compares the token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.messages import Message, ToolCall

FIRST_TEST = "python3 -m pytest -xqq --tb=line"
NEXT_TEST = "python3 -m pytest -xqq --tb=no"
PHRASES = {
    "comparison": "comparison",
    "operator": "operator",
    "condition": "condition",
    "constant": "constant",
    "variable": "variable",
    "negation": "negation",
    "off-by-one": "bound",
    "call": "call",
    "order": "order",
}


@dataclass(frozen=True)
class OracleRepair:
    """One edit to try: ``line`` (0-based) of the file becomes ``fixed`` (without indentation)."""

    kind: str
    line: int
    fixed: str


def edit_strings(text: str, line: int, fixed: str) -> tuple[str, str]:
    """Return the shortest unique ``old_string`` of whole lines of ``text``, and its new form.

    Starts from the line without its indentation and takes in lines above until it is unique.
    """
    lines = text.split("\n")
    old, new = lines[line].strip(), fixed
    above = line
    while text.find(old) != text.rfind(old) and above > 0:
        above -= 1
        indentation = lines[above + 1][: len(lines[above + 1]) - len(lines[above + 1].lstrip())]
        old = f"{lines[above].strip()}\n{indentation}{old}"
        new = f"{lines[above].strip()}\n{indentation}{new}"
    return old, new


def replace_line(text: str, line: int, content: str) -> str:
    """Return ``text`` with one line's content changed and its indentation kept."""
    lines = text.split("\n")
    indentation = lines[line][: len(lines[line]) - len(lines[line].lstrip())]
    lines[line] = indentation + content
    return "\n".join(lines)


def edit_call(path: str, old: str, new: str) -> ToolCall:
    """Make an ``edit`` call."""
    return ToolCall("edit", {"file_path": path, "old_string": old, "new_string": new})


def run_call(command: str) -> ToolCall:
    """Make a ``run_shell_command`` call."""
    return ToolCall("run_shell_command", {"command": command})


def first_turn(path: str) -> Message:
    """Run the tests and read the file."""
    return Message(
        "assistant",
        thinking=f"Run the tests and read `{path}`.",
        tool_calls=(run_call(FIRST_TEST), ToolCall("read_file", {"file_path": path})),
    )


def suspicion(text: str, attempt: OracleRepair) -> str:
    """Return the sentence that names the suspected line."""
    line = text.split("\n")[attempt.line].strip()
    return f"The {PHRASES[attempt.kind]} in `{line}` looks wrong."


def attempt_turn(
    path: str, text: str, attempt: OracleRepair, undo: OracleRepair | None = None
) -> Message:
    """Edit the suspected line of ``text`` and run the tests.

    ``undo`` is the attempt before, still in the file and to be taken back first; ``text`` is the
    file without it.
    """
    calls: list[ToolCall] = []
    thinking = suspicion(text, attempt)
    if undo is not None:
        tried = replace_line(text, undo.line, undo.fixed)
        old, new = edit_strings(tried, undo.line, text.split("\n")[undo.line].strip())
        calls.append(edit_call(path, old, new))
        thinking = f"Not that. {thinking}"
    calls.append(edit_call(path, *edit_strings(text, attempt.line, attempt.fixed)))
    calls.append(run_call(NEXT_TEST))
    return Message("assistant", thinking=thinking, tool_calls=tuple(calls))


def last_turn(name: str) -> Message:
    """Submit."""
    call = ToolCall("submit", {"summary": f"Fixed {name}."})
    return Message("assistant", thinking="The tests pass.", tool_calls=(call,))


def assistant_text(message: Message) -> str:
    """Return the sampled text of a turn, from after ``<think>\\n`` to its stop token."""
    calls = "\n".join(_call_text(call) for call in message.tool_calls)
    return f"{message.thinking}\n</think>\n\n{calls}<|im_end|>"


def _call_text(call: ToolCall) -> str:
    parameters = "".join(
        f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in call.arguments.items()
    )
    return f"<tool_call>\n<function={call.name}>\n{parameters}</function>\n</tool_call>"


TURN = "<|im_start|>assistant\n<think>\n"


def user_text(content: str) -> str:
    """Return the first user message and the generation prompt."""
    return f"<|im_start|>user\n{content}<|im_end|>\n{TURN}"


def observation_text(observations: Sequence[str]) -> str:
    """Tool results as one user turn, and the generation prompt; follows a turn's stop token."""
    inner = "".join(f"\n<tool_response>\n{text}\n</tool_response>" for text in observations)
    return f"\n<|im_start|>user{inner}<|im_end|>\n{TURN}"
