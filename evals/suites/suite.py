"""The contract of a suite: read its tasks, lay one out, grade the work.

To add a suite, write a class that keeps this contract and name it in ``evals.suites``, or keep it
in a file of your own and give that file's path in the suite's place: ``agent eval run my_suite.py``
takes the module's ``SUITE``. ``examples/suite_adapter.py`` is a worked example.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent.run.build import open_box
from agent.settings.load import check_settings
from agent.settings.table import Settings
from evals.errors import DatasetError
from evals.instance import Instance, TaskPlace, Verdict
from evals.judge import Judge
from evals.suites.images import Images
from sandboxes.errors import SandboxError, WorkspaceError
from sandboxes.workspace.workspace import Workspace

__all__ = ["Machine", "Suite", "TaskPlace", "Verdict", "grade_each", "run_check"]

Tell = Callable[[str], None]
OUTPUT_KEPT = 20_000
"""Characters of a check's output that a verdict keeps, from its end."""


@dataclass(frozen=True)
class Machine:
    """The user's settings and images, with which suites do their work.

    ``judge`` is asked by graders (``evals.judge``); ``scripts`` is a checkout of the makers'.
    ``time_factor`` multiplies the time limits that tasks bring.
    """

    settings: Settings
    images: Images
    tell: Tell = field(default=lambda line: None)
    judge: Judge | None = None
    scripts: Path | None = None
    time_factor: float = 1.0


class Suite(Protocol):
    """A kind of task."""

    name: str

    def load(self, dataset: str | None) -> list[Instance]:
        """Read the tasks of ``dataset`` (None: the suite's own, if it has any).

        Raises ``DatasetError``.
        """
        ...

    def place(self, instance: Instance, machine: Machine) -> AbstractContextManager[TaskPlace]:
        """Lay out the repository to work on, for as long as the context lasts.

        Raises ``SandboxError``.
        """
        ...

    def grade(
        self,
        instances: Sequence[Instance],
        patches: Mapping[str, str],
        machine: Machine,
        *,
        folder: Path,
        workers: int = 1,
    ) -> list[Verdict]:
        """Grade each of ``patches``, by instance id.

        ``folder`` is for what grading leaves behind; a second call goes on there. Raises
        ``GradeError``.
        """
        ...


NOP_PATCH = """\
diff --git a/.tenuto-nop b/.tenuto-nop
new file mode 100644
--- /dev/null
+++ b/.tenuto-nop
@@ -0,0 +1 @@
+This patch changes nothing that a test looks at.
"""
"""The patch of the agent ``nop``: an empty one would not be run through the tests."""


def gold_patch(suite: Suite, instance: Instance) -> str:
    """Return the patch that the data set has for an instance.

    A suite may have ``solution(instance)``; else it is the row's ``patch``. Raises ``DatasetError``
    if there is none.
    """
    own = getattr(suite, "solution", None)
    patch = own(instance) if callable(own) else instance.row.get("patch")
    if not isinstance(patch, str) or not patch.strip():
        raise DatasetError(f"{instance.id} has no solution in its data set")
    return patch


def grade_each(
    one: Callable[[Instance, str], Verdict],
    instances: Sequence[Instance],
    patches: Mapping[str, str],
    workers: int,
) -> list[Verdict]:
    """Grade instance by instance in ``workers`` threads. An empty patch solves nothing.

    An instance whose sandbox fails is not graded; its verdict says why.
    """

    def graded(instance: Instance) -> Verdict:
        patch = patches[instance.id]
        if not patch.strip():
            return Verdict(instance.id, False, reason="empty patch")
        try:
            return one(instance, patch)
        except SandboxError as error:
            return Verdict(instance.id, None, reason=f"not graded: {error}")

    chosen = [instance for instance in instances if instance.id in patches]
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        return list(pool.map(graded, chosen))


def run_check(
    instance_id: str,
    place: TaskPlace,
    patch: str,
    command: str,
    machine: Machine,
    *,
    restore: Mapping[str, str] | None = None,
) -> Verdict:
    """Run ``command`` in a fresh sandbox over ``place`` with ``patch`` applied.

    ``restore`` are files that are put back as they were before it runs: the tests. Raises
    ``SandboxError``.
    """
    settings = settings_for(machine.settings, place)
    with ExitStack() as stack:
        workspace = Workspace.create(place.repo, ignored=settings.ignored_files)
        stack.callback(workspace.close)
        try:
            workspace.apply_to(workspace.path, patch)
        except WorkspaceError as error:
            return Verdict(instance_id, False, reason=f"the patch does not apply: {error}")
        sandbox = stack.enter_context(open_box(settings, workspace, f"grade-{instance_id}"))
        for path, text in (restore or {}).items():
            sandbox.write_bytes(path, text.encode())
        done = sandbox.shell().run(
            f"bash -c {shlex.quote(command)}", timeout_s=settings.check_timeout
        )
    passed = done.exit_code == 0
    reason = "" if passed else f"the check ended with exit code {done.exit_code}"
    if done.timed_out:
        reason = f"the check ran over {settings.check_timeout:g} s"
    return Verdict(instance_id, passed, float(passed), reason, done.output[-OUTPUT_KEPT:])


def settings_for(settings: Settings, place: TaskPlace) -> Settings:
    """Return the user's settings with what the place decides."""
    return combine(settings, place.settings)


def combine(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return ``settings`` with ``changes``, all of it checked. Raises ``ConfigError``.

    An image of the task's own takes the place of one that the user's settings would build.
    """
    if "image" in changes:
        changes = {"dockerfile": None, "devcontainer": None, "setup": (), **changes}
    return check_settings(settings.model_dump() | dict(changes), [("the task", changes)])


def needs_image(suite: Suite, instances: Sequence[Instance]) -> bool:
    """Tell whether one of ``instances`` runs in the user's image: it brings none, nor its suite."""
    brings = getattr(suite, "brings_images", False)
    return not brings and any(instance.image is None for instance in instances)


def needed(instances: Sequence[Instance]) -> list[str]:
    """Return the images that ``instances`` bring, each once."""
    return list(dict.fromkeys(instance.image for instance in instances if instance.image))
