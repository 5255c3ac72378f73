"""Tenuto as one of Harbor's installed agents.

    harbor run -p TASKS -a evals.harbor_agent:Tenuto -m Qwen/Qwen3.5-4B

Harbor's own interpreter imports this file (Python 3.12), so it imports nothing of ours and our
packages need only be on its path: ``PYTHONPATH`` is a checkout, or ``pip install --no-deps
tenuto``. In the task's container Tenuto is installed from ``--ak wheel=FILE``, else from the index;
with ``--ak python=PROGRAM`` it is there already. ``--ak settings=JSON`` are settings by their keys.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Only Harbor's own interpreter has it, so mypy here knows none of its types: four ignores.
from harbor.agents.capabilities import AgentCapabilities  # type: ignore[import-not-found]
from harbor.agents.installed.base import (  # type: ignore[import-not-found]
    BaseInstalledAgent,
    with_prompt_template,
)

HOME = "/installed-agent"
LOGS = "/logs/agent"


class Tenuto(BaseInstalledAgent):  # type: ignore[misc]
    """Installs Tenuto in the container and lets it work on the task there."""

    capabilities = AgentCapabilities(atif=True)
    skip_model_parsing = True

    def __init__(
        self,
        *args: Any,
        wheel: str | None = None,
        python: str | None = None,
        settings: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._settings = dict(settings or {})
        self._wheel = Path(wheel) if wheel else None
        self._python = python or f"{HOME}/venv/bin/python"
        self._is_there = python is not None
        super().__init__(*args, **kwargs)

    @staticmethod
    def name() -> str:
        """Return the agent's name in Harbor's results."""
        return "tenuto"

    @classmethod
    def check_model_credentials(cls, *args: Any, **kwargs: Any) -> None:
        """Ask for no key: the model runs in the container."""

    def get_version_command(self) -> str | None:
        """Return the command that prints the version."""
        return f"{self._python} -m agent.cli.main --version"

    async def install(self, environment: Any) -> None:
        """Put Tenuto into a virtual environment of the container, unless it is there."""
        if self._is_there:
            return
        source = "tenuto"
        if self._wheel is not None:
            source = f"{HOME}/{self._wheel.name}"
            await environment.upload_file(self._wheel, source)
        await self.exec_as_root(
            environment,
            f"python3 -m venv {HOME}/venv && {HOME}/venv/bin/pip install {shlex.quote(source)}",
        )

    @with_prompt_template  # type: ignore[untyped-decorator]
    async def run(self, instruction: str, environment: Any, context: Any) -> None:
        """Work on the task in the container's working folder."""
        settings = dict(self._settings)
        if self.model_name:
            settings["model"] = self.model_name
        asked = {"instruction": instruction, "logs": LOGS, "settings": settings}
        await self.exec_as_agent(
            environment,
            f"printf %s {shlex.quote(json.dumps(asked))} | "
            f"{shlex.quote(self._python)} -m evals.harbor_run 2>&1 | tee {LOGS}/tenuto.txt; "
            f"test -f {LOGS}/usage.json",
        )

    def populate_context_post_run(self, context: Any) -> None:
        """Tell Harbor what the session used."""
        try:
            found = json.loads((self.logs_dir / "usage.json").read_text())
            usage = found["usage"]
        except (OSError, ValueError, KeyError):
            return
        reused = usage.get("reused_tokens", 0)
        context.n_cache_tokens = round(reused)
        context.n_input_tokens = round(usage.get("prefilled_tokens", 0) + reused)
        context.n_output_tokens = round(usage.get("generated_tokens", 0))
        context.metadata = {"status": found.get("status")}
