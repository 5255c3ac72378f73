"""Print how many tasks of a suite's folder load here, and why the others do not.

    python scripts/count_tasks.py claw-eval FOLDER [--filter '^T']
    python scripts/count_tasks.py terminal-bench FOLDER

Task folders in Harbor's format and those of nl2repo are looked for at any depth. A task that needs
a GPU, another system or a secret of the user's is counted apart. With ``--start`` the services of
each Claw-Eval task are started too, in a container each, and its grader is loaded. Nothing of the
folder is changed.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from agent.run.build import with_image
from agent.settings.load import load_settings
from evals.errors import EvalError
from evals.instance import Instance
from evals.suites import find_suite
from evals.suites.images import Images
from evals.suites.suite import Machine, Suite
from sandboxes.errors import SandboxError

FOREIGN = ("a GPU", "a TPU", "the system ", "the variable ")
"""Words in a refusal by which it is no fault of ours."""
MARKS = {
    "terminal-bench": "task.toml",
    "skillsbench": "task.toml",
    "skillsbench-without": "task.toml",
    "nl2repo": "test_commands.json",
}


def load_all(suite: Suite, folder: str) -> list[Instance]:
    """Load every task below ``folder``, one by one where each is a folder, so that none hides.

    Raises ``EvalError``.
    """
    if suite.name not in MARKS:
        return suite.load(folder)
    found: list[Instance] = []
    for mark in sorted(Path(folder).rglob(MARKS[suite.name])):
        try:
            found += suite.load(str(mark.parent))
        except EvalError as error:
            found.append(Instance(mark.parent.name, "", refused=str(error)))
    return found


def main() -> int:
    """Count and print; return 1 if fewer than 95 % load of those that can."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite")
    parser.add_argument("folder")
    parser.add_argument("--filter", default="")
    parser.add_argument("--start", action="store_true")
    options = parser.parse_args()
    try:
        suite = find_suite(options.suite)
        every = [i for i in load_all(suite, options.folder) if re.search(options.filter, i.id)]
    except EvalError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    why = [(i.id, i.refused) for i in every if i.refused]
    if options.start:
        why += start_all(suite, [i for i in every if not i.refused])
    for name, told in sorted(why):
        sys.stdout.write(f"{name}: {told}\n")
    if len(why) > 1:
        reasons = Counter(told.replace(name, "NAME") for name, told in why)
        for told, count in reasons.most_common():
            sys.stdout.write(f"{count:5}  {told}\n")
    foreign = sum(any(word in told for word in FOREIGN) for _, told in why)
    loaded, ours = len(every) - len(why), len(every) - foreign
    sys.stdout.write(f"{loaded} of {len(every)} tasks load")
    apart = f"; {foreign} of the others need a GPU, another system or a secret" if foreign else ""
    sys.stdout.write(f"{apart}\n")
    return 0 if every and loaded >= 0.95 * ours else 1


def start_all(suite: Suite, instances: list[Instance]) -> list[tuple[str, str]]:
    """Lay each task out; return those that cannot be, with the reason."""
    machine = Machine(with_image(load_settings({})), Images(pull=False))

    def begin(instance: Instance) -> str:
        try:
            with ExitStack() as stack:
                stack.enter_context(suite.place(instance, machine))
        except SandboxError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(max_workers=2) as pool:
        found = zip(instances, pool.map(begin, instances), strict=True)
        return [(instance.id, told) for instance, told in found if told]


if __name__ == "__main__":
    sys.exit(main())
