"""A plain Docker environment for Harbor, for machines without ``docker compose``.

Harbor's interpreter imports it. Folders in ``TENUTO_MOUNTS`` are there read-only.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from pathlib import Path
from typing import Any

from harbor.environments.base import BaseEnvironment, ExecResult
from harbor.environments.capabilities import EnvironmentCapabilities


class PlainDocker(BaseEnvironment):
    """One container, without a network, driven by the command ``docker``."""

    @staticmethod
    def type() -> str:
        return "plain-docker"

    @property
    def capabilities(self) -> EnvironmentCapabilities:
        return EnvironmentCapabilities(disable_internet=True)

    def _validate_definition(self) -> None:
        if not (self.environment_dir / "Dockerfile").is_file():
            raise FileNotFoundError("no Dockerfile")

    @property
    def _name(self) -> str:
        return f"tenuto-harbor-{self.session_id}".lower()

    async def _docker(self, *words: str, limit: float | None = None) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            "docker", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await asyncio.wait_for(process.communicate(), limit)
        return process.returncode or 0, out.decode("utf-8", "replace")

    async def _must(self, *words: str) -> str:
        code, out = await self._docker(*words)
        if code != 0:
            raise RuntimeError(f"docker {words[0]}: {out[-500:]}")
        return out

    async def start(self, force_build: bool) -> None:
        await self._must("build", "-q", "-t", self._name, str(self.environment_dir))
        mounts = [
            word
            for path in os.environ.get("TENUTO_MOUNTS", "").split(":")
            if path
            for word in ("-v", f"{path}:{path}:ro")
        ]
        await self._must(
            *("run", "-d", "--init", "--network", "none", "--name", self._name),
            *(*mounts, self._name, "sleep", "infinity"),
        )
        folders = "/logs/agent /logs/verifier /logs/artifacts /tests /solution"
        await self.exec(f"mkdir -p {folders} && chmod -R 777 /logs")

    async def stop(self, delete: bool) -> None:
        await self._docker("rm", "-f", "-v", self._name)
        if delete:
            await self._docker("rmi", "-f", self._name)

    async def upload_file(self, source_path: Path | str, target_path: str) -> None:
        await self.exec(f"mkdir -p {shlex.quote(str(Path(target_path).parent))}")
        await self._must("cp", str(source_path), f"{self._name}:{target_path}")

    async def upload_dir(self, source_dir: Path | str, target_dir: str) -> None:
        await self.exec(f"mkdir -p {shlex.quote(target_dir)}")
        await self._must("cp", f"{source_dir}/.", f"{self._name}:{target_dir}")

    async def download_file(self, source_path: str, target_path: Path | str) -> None:
        await self._must("cp", f"{self._name}:{source_path}", str(target_path))

    async def download_dir(self, source_dir: str, target_dir: Path | str) -> None:
        Path(target_dir).mkdir(parents=True, exist_ok=True)
        await self._must("cp", f"{self._name}:{source_dir}/.", str(target_dir))

    async def exec(
        self,
        command: str,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        timeout_sec: int | None = None,
        user: str | int | None = None,
        **more: Any,
    ) -> ExecResult:
        merged = self._merge_env(env) or {}
        words = [word for key, value in merged.items() for word in ("-e", f"{key}={value}")]
        words += ["-w", cwd] if cwd else []
        words += ["-u", str(user)] if user is not None else []
        code, out = await self._docker(
            "exec", *words, self._name, "bash", "-c", command, limit=timeout_sec
        )
        return ExecResult(stdout=out, stderr="", return_code=code)
