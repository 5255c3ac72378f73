"""todo_write: keep the model's own list of what is to do, for the session."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tools.schema import Parameters
from tools.types import Observation, ToolContext, ToolSpec

_MARKS = {"pending": "[ ]", "in_progress": "[>]", "completed": "[x]"}


class Todo(Parameters):
    """One thing to do."""

    id: str | None = Field(default=None, description="A name of your choice.")
    content: str = Field(min_length=1, description="What is to do.")
    status: Literal["pending", "in_progress", "completed"]


class TodoWriteParameters(Parameters):
    """The parameters of todo_write."""

    todos: list[Todo] = Field(description="The whole list, also what has not changed.")


def run(context: ToolContext, parameters: TodoWriteParameters) -> Observation:
    """Replace the list in the context and show it."""
    context.todos[:] = [todo.model_dump(exclude_none=True) for todo in parameters.todos]
    if not parameters.todos:
        return Observation("Todo list: empty.")
    done = sum(todo.status == "completed" for todo in parameters.todos)
    lines = [f"{_MARKS[todo.status]} {todo.content}" for todo in parameters.todos]
    return Observation("\n".join([f"Todo list ({done} of {len(lines)} completed):", *lines]))


TOOL = ToolSpec(
    name="todo_write",
    description=(
        "Write down the steps of a task with several parts and how far each is. Each call "
        "replaces the whole list. Not needed for small tasks."
    ),
    parameters=TodoWriteParameters,
    run=run,
    kind="session",
)
