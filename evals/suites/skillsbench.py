"""SkillsBench: tasks in Harbor's format whose image has skills, run with them or without.

A skill is a folder with ``SKILL.md`` (front matter ``name`` and ``description``, then what to do).
The task's Dockerfile copies ``environment/skills`` to where several agents look. Here they are
looked for in the image, the model is told their descriptions, and reads the rest when it wants it.
The published score is the mean reward of five attempts with skills; the suite
``skillsbench-without`` is the other arm, whose image is built without them.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

from evals.instance import Instance
from evals.scratch import scratch_folder
from evals.suites.harbor import HarborTask
from evals.suites.images import PULL_TIMEOUT_S, build
from evals.suites.skills import skills_told
from evals.suites.suite import Machine
from evals.suites.terminal_bench import TerminalBench

_OF_AGENTS = (".agents", ".claude", ".qwen", ".codex")
_ELSEWHERE = ("/etc/claude-code/.claude/skills",)
_IN_IMAGE = "the task {} has its skills in an image that is not built here, so they stay in it"


class SkillsBench(TerminalBench):
    """The suite of tasks with skills; ``with_skills`` tells the two arms apart."""

    def __init__(self, *, with_skills: bool = True) -> None:
        """Choose the arm."""
        self.with_skills = with_skills
        self.name = "skillsbench" if with_skills else "skillsbench-without"

    def load(self, dataset: str | None) -> list[Instance]:
        """Read the tasks; in the other arm a ready-made image refuses its task."""
        found = super().load(dataset)
        if self.with_skills:
            return found
        return [
            replace(one, refused=_IN_IMAGE.format(one.id)) if one.image and not one.refused else one
            for one in found
        ]

    def image_of(self, instance: Instance, task: HarborTask, machine: Machine) -> str:
        """Build the image, in the other arm from a context without skills."""
        if self.with_skills or instance.folder is None:
            return super().image_of(instance, task, machine)
        limit = task.build_timeout_s or PULL_TIMEOUT_S
        with scratch_folder("without") as scratch:
            context = scratch / "environment"
            shutil.copytree(instance.folder / "environment", context, symlinks=True)
            for inner in (context / "skills").iterdir() if (context / "skills").is_dir() else ():
                shutil.rmtree(inner) if inner.is_dir() else inner.unlink()
            return build(context, f"{instance.id}-without", machine.tell, limit)

    def notes_on(self, image: str, task: HarborTask, home: str, workdir: str) -> str:
        """Return what the model is told of the image's skills."""
        if not self.with_skills:
            return ""
        tops = dict.fromkeys((workdir, home))
        usual = [f"{top}/{agent}/skills" for top in tops for agent in _OF_AGENTS]
        return skills_told(image, [*filter(None, [task.skills_dir]), *usual, *_ELSEWHERE])
