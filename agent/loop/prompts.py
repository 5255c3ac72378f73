"""The words the model gets that are neither the user's nor a tool's."""

from __future__ import annotations

import re

from agent.loop.stalls import (
    IDENTICAL_IN_A_ROW,
    MALFORMED_IN_A_ROW,
    UNCHANGED_END,
    UNCHANGED_STEPS,
)
from agent.types import Task
from model.messages import Message
from sandboxes.base import Sandbox

_FENCE = re.compile(r"^[ \t]*(?:```+|~~~+)[^\n]*$", re.MULTILINE)

SYSTEM = """\
You are Tenuto, a software engineer who works alone in one repository. Nobody answers questions: \
decide, act, and finish the task.

The repository is at {root}. It is a private copy; its diff when you submit is your answer. \
{network}

How to work:
- Look before you change: find the code the task is about and read it. When the task names tests \
or a check command, run them first and read the failure.
- Find the cause and make the smallest change that removes it. Do not touch unrelated code, and do \
not change tests to make them pass unless the task says so.
- Give `edit` an `old_string` copied exactly from the file, with enough lines around it to be the \
only match. When an edit fails, read the file again before the next try.
- Commands run in one shell that stays open and cannot ask for input. Keep their output short.
- After a change run the tests again. When they pass and the task is done, call `submit` with one \
sentence about what was wrong and what you changed. Only `submit` ends the work.

Every turn must call a tool."""

WITH_A_PERSON = """\
You are Tenuto, a software engineer who works with a person in their editor, in one repository.

The repository is at {root}. It is a private copy in which commands run; what you change in its \
files reaches the person's own files. {network}

How to work:
- Look before you change: find the code the request is about and read it. The person may change \
files meanwhile, so read a file again when an edit does not fit.
- Find the cause and make the smallest change that removes it. Do not touch unrelated code.
- Give `edit` an `old_string` copied exactly from the file, with enough lines around it to be the \
only match.
- Commands run in one shell that stays open and cannot ask for input. Keep their output short.
- The person may refuse a call. Then go on without it, or ask.
- When the work is done and its tests pass, call `submit` with one sentence about what you \
changed. When you only have something to say or to ask, say it without a call: that ends your \
turn."""

NO_CALL = "No tool was called. Call a tool to go on, or call submit if the task is done."

SHOWN = (
    "No tool was called: a call inside a code fence, an indented block or backticks is only shown, "
    "not made. Write the call itself, with nothing around it:\n"
    "<tool_call>\n<function=NAME>\n<parameter=PARAMETER>\nVALUE\n</parameter>\n</function>\n"
    "</tool_call>"
)

CUT = "Your turn was cut off after {tokens} tokens. Think and write less, then call one tool."

NOT_RUN = "Not run: the session stopped before this call. Make it again if it is still needed."

MALFORMED = (
    f"{MALFORMED_IN_A_ROW} turns in a row had no usable tool call; one more ends the session. "
    "A call must look exactly like this, with the name and parameters of one of your tools:\n"
    "<tool_call>\n<function=NAME>\n<parameter=PARAMETER>\nVALUE\n</parameter>\n</function>\n"
    "</tool_call>"
)

UNCHANGED = (
    f"No file has changed in {UNCHANGED_STEPS} steps. Make the change that the task needs, or call "
    f"submit if it is done; after {UNCHANGED_END} such steps the session ends."
)

REPEATED = (
    f"You have made this same call {IDENTICAL_IN_A_ROW} times in a row; one more ends the session. "
    "Its result will not change. Do something else."
)


def first_messages(
    task: Task, *, root: str, network: bool = False, system: str = SYSTEM, notes: str = ""
) -> list[Message]:
    """Return the system message and the task.

    The user's message is the task's text and, if there is one, its check, and nothing else: the
    embedded model was trained on exactly this. ``root`` is ``place_of`` the sandbox; ``system`` is
    ``SYSTEM`` or ``WITH_A_PERSON``; ``notes`` are what is told of the repository
    (``overview.overview``) and come after it.
    """
    reach = "Commands can reach the network." if network else "Commands have no network access."
    return [
        Message("system", f"{system.format(root=root, network=reach)}\n\n{notes}".rstrip()),
        Message("user", user_text(task), pictures=task.pictures),
    ]


def shows_a_call(content: str) -> bool:
    """Tell whether visible text has a call in it that was only shown."""
    return "<function=" in content or "<tool_call>" in content


def shows_only_calls(content: str) -> bool:
    """Tell whether visible text is nothing but code fences with calls in them."""
    parts = _FENCE.split(content)
    outside, inside = parts[::2], parts[1::2]
    return any(map(shows_a_call, inside)) and not "".join(outside).strip()


def fixed_part(text: str) -> str:
    """Return the beginning that a system message has in every repository; "" if it is not ours.

    It ends some words before the notes do begin: how those are split may depend on what follows.
    """
    for system in (SYSTEM, WITH_A_PERSON):
        head, end, _ = text.partition(" ".join(system.split(" ")[-4:]))
        if end:
            return head.rstrip()
    return ""


def place_of(sandbox: Sandbox) -> str:
    """Return where the system message says that the repository is.

    The copy of a local sandbox lies in another folder each time; a prompt that names it would be
    another one each time, and no stored beginning would fit it (``agent.sessions.prefix_cache``).
    """
    return "the folder in which commands start" if sandbox.kind == "local" else sandbox.root


def later_text(message: str, check: str | None) -> str:
    """Return a later user message, with the check if it is another one than before."""
    return f"{message.strip()}\n\nCheck: {check}" if check else message.strip()


def user_text(task: Task) -> str:
    """Return the task as the model reads it."""
    text = task.text.strip()
    return f"{text}\n\nCheck: {task.check}" if task.check else text
