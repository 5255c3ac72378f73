"""``agent completion``: completion of commands and flags in the user's shell."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from agent.cli.output import write_out
from agent.errors import ConfigError

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_AGENT_COMPLETE"
"""The variable by which a shell asks for completions instead of a command."""


def completion(
    shell: Annotated[str, typer.Argument(metavar="|".join(SHELLS), help="Your shell.")],
) -> None:
    """Print the lines that let your shell complete commands and flags.

    Examples:
      agent completion bash >> ~/.bashrc
      agent completion zsh >> ~/.zshrc
      agent completion fish > ~/.config/fish/completions/agent.fish
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    if shell not in SHELLS:
        raise ConfigError(f"there is no completion for {shell!r}; shells: {', '.join(SHELLS)}")
    script = get_completion_script(prog_name="agent", complete_var=VARIABLE, shell=shell)
    write_out(f"{script}\n")


def answer_shells() -> None:
    """Let typer answer a shell that asks for completions, which it does before any command."""
    if VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
