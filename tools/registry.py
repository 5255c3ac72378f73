"""The registry of a session's tools: check a call, run it, answer with an observation."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from sandboxes.errors import PathEscape, SandboxError, SandboxGone
from tools import (
    apply_patch,
    edit,
    find_references,
    find_symbol,
    glob,
    grep_search,
    list_directory,
    read_file,
    repo_map,
    submit,
    todo_write,
    write_file,
)
from tools.edits.preview import Change, preview_context
from tools.errors import ToolFailure
from tools.schema import describe_errors
from tools.shell import run_shell_command, shell_input, shell_process
from tools.text.truncate import cut_line, cut_middle
from tools.types import MAX_CHARACTERS as _MAX_CHARACTERS
from tools.types import Observation, ToolContext, ToolKind, ToolSpec

_log = logging.getLogger(__name__)

_KNOWN_ELSEWHERE = {
    "bash": "run_shell_command",
    "execute_bash": "run_shell_command",
    "run_command": "run_shell_command",
    "run_terminal_cmd": "run_shell_command",
    "shell_command": "run_shell_command",
    "exec_command": "run_shell_command",
    "shell": "run_shell_command",
    "terminal": "run_shell_command",
    "execute_command": "run_shell_command",
    "cat": "read_file",
    "view": "read_file",
    "open": "read_file",
    "read": "read_file",
    "replace": "edit",
    "edit_file": "edit",
    "replace_in_file": "edit",
    "str_replace_based_edit_tool": "edit",
    "search_replace": "edit",
    "str_replace": "edit",
    "str_replace_editor": "edit",
    "create": "write_file",
    "write": "write_file",
    "write_to_file": "write_file",
    "create_file": "write_file",
    "patch": "apply_patch",
    "applypatch": "apply_patch",
    "multi_edit": "apply_patch",
    "ls": "list_directory",
    "list_dir": "list_directory",
    "grep": "grep_search",
    "search": "grep_search",
    "search_file_content": "grep_search",
    "search_files": "grep_search",
    "codebase_search": "grep_search",
    "find": "glob",
    "file_search": "glob",
    "todowrite": "todo_write",
    "write_todos": "todo_write",
    "update_plan": "todo_write",
    "repomap": "repo_map",
    "find_definition": "find_symbol",
    "go_to_definition": "find_symbol",
    "goto_definition": "find_symbol",
    "find_class": "find_symbol",
    "find_function": "find_symbol",
    "find_usages": "find_references",
    "usages": "find_references",
    "lsp": "find_references",
    "finish": "submit",
    "done": "submit",
    "attempt_completion": "submit",
    "task_completed": "submit",
}
"""Names that other agents give the same tools, to point a model at ours."""


def default_tools() -> tuple[ToolSpec, ...]:
    """Return every tool of this package, in the order the model reads them."""
    return (
        read_file.TOOL,
        edit.TOOL,
        write_file.TOOL,
        apply_patch.TOOL,
        grep_search.TOOL,
        glob.TOOL,
        list_directory.TOOL,
        repo_map.TOOL,
        find_symbol.TOOL,
        find_references.TOOL,
        run_shell_command.TOOL,
        shell_process.TOOL,
        shell_input.TOOL,
        todo_write.TOOL,
        submit.TOOL,
    )


class Registry:
    """The tools of one session by name. Every failure of a call is an observation."""

    def __init__(self, context: ToolContext, tools: Sequence[ToolSpec] | None = None) -> None:
        """Register ``tools``, or ``default_tools()``. Raises ``ValueError`` if two share a name."""
        specs = default_tools() if tools is None else tools
        self.context = context
        self._tools = {spec.name: spec for spec in specs}
        if len(self._tools) != len(specs):
            raise ValueError("two tools have the same name: give each its own")

    @property
    def names(self) -> tuple[str, ...]:
        """The names the model may call."""
        return tuple(self._tools)

    def schemas(self) -> list[Mapping[str, Any]]:
        """Return the function schemas for the chat template, in order."""
        return [spec.schema() for spec in self._tools.values()]

    def kind(self, name: str, arguments: Mapping[str, Any] | None = None) -> ToolKind | None:
        """Return the kind of the tool, or of this call of it; None if there is no such tool."""
        spec = self._tools.get(name)
        if spec is None:
            return None
        reads = arguments is not None and spec.only_reads is not None and spec.only_reads(arguments)
        return "read" if reads else spec.kind

    def subject(self, name: str) -> str:
        """Return the name that rules use for the tool."""
        spec = self._tools.get(name)
        return (spec.subject if spec is not None else "") or name

    def preview(self, name: str, arguments: Mapping[str, Any]) -> tuple[Change, ...] | None:
        """Return what an ``edit`` call would change if it ran now; nothing if it would fail.

        None if that cannot be told. Raises ``SandboxGone`` only.
        """
        spec = self._tools.get(name)
        if spec is None or spec.kind != "edit":
            return ()
        context, paper = preview_context(self.context)
        try:
            spec.run(context, spec.parameters.model_validate(dict(arguments)))
            return paper.changes()
        except SandboxGone:
            raise
        except (ValidationError, ToolFailure, SandboxError):
            return ()
        except Exception:
            _log.exception("tool %s has no preview", name)
            return None

    def refuse(self, name: str, error: str) -> Observation:
        """Answer a call that could not be read; for an unknown tool name the nearest ones."""
        text = error if name in self._tools or not name else self._explain_unknown(name)
        return _finish(Observation(text, ok=False), _MAX_CHARACTERS)

    def run(self, name: str, arguments: Mapping[str, Any]) -> Observation:
        """Run one call. Raises ``SandboxGone`` only; every other failure is an observation."""
        spec = self._tools.get(name)
        if spec is None:
            return _finish(Observation(self._explain_unknown(name), ok=False), _MAX_CHARACTERS)
        try:
            parameters = spec.parameters.model_validate(dict(arguments))
            observation = spec.run(self.context, parameters)
        except ValidationError as error:
            text = describe_errors(name, spec.parameters, error)
            observation = Observation(text, ok=False)
        except ToolFailure as failure:
            observation = Observation(str(failure), ok=False)
        except SandboxGone:
            raise
        except PathEscape:
            text = "The path leads out of the repository: use a path relative to its root."
            observation = Observation(text, ok=False)
        except SandboxError as error:
            observation = Observation(f"{name} failed: {error}", ok=False)
        except Exception as error:
            _log.exception("tool %s failed unexpectedly", name)
            text = f"internal error in {name}: {type(error).__name__}: {error}. Try another way."
            observation = Observation(text, ok=False)
        return _finish(observation, spec.max_characters)

    def _explain_unknown(self, name: str) -> str:
        near = _KNOWN_ELSEWHERE.get(name.lower())
        if near not in self._tools:
            close = difflib.get_close_matches(name[:80], self._tools, n=1, cutoff=0.6)
            near = close[0] if close else None
        hint = f" Did you mean {near}?" if near else ""
        shown = cut_line(name, 80)
        return f"There is no tool {shown!r}.{hint} The tools are: {', '.join(self._tools)}."


def _finish(observation: Observation, max_characters: int) -> Observation:
    """Keep the text within ``max_characters``, and replace lone surrogates (from file names)."""
    text, cut = cut_middle(observation.text, max_characters)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode("utf-8")
    if text == observation.text:
        return observation
    return replace(observation, text=text, truncated=observation.truncated or cut)
