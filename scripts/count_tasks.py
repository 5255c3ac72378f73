"""Print how many tasks of a suite's folder load here, and why the others do not.

    python scripts/count_tasks.py claw-eval FOLDER [--filter '^T']

With ``--start`` the services of each Claw-Eval task are started too, in a container each, and its
grader is loaded. Nothing of the folder is changed.
"""

from __future__ import annotations

import argparse
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from agent.run.build import with_image
from agent.settings.load import load_settings
from evals.errors import EvalError
from evals.instance import Instance
from evals.suites import find_suite
from evals.suites.images import Images
from evals.suites.suite import Machine
from sandboxes.errors import SandboxError


def main() -> int:
    """Count and print; return 1 if fewer than 95 % load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite")
    parser.add_argument("folder")
    parser.add_argument("--filter", default="")
    parser.add_argument("--start", action="store_true")
    options = parser.parse_args()
    try:
        suite = find_suite(options.suite)
        every = [i for i in suite.load(options.folder) if re.search(options.filter, i.id)]
    except EvalError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    why = {i.id: i.refused for i in every if i.refused}
    if options.start:
        machine = Machine(with_image(load_settings({})), Images(pull=False))
        left = [i for i in every if not i.refused]

        def begin(instance: Instance) -> str:
            try:
                with ExitStack() as stack:
                    stack.enter_context(suite.place(instance, machine))
            except SandboxError as error:
                return str(error)
            return ""

        with ThreadPoolExecutor(max_workers=2) as pool:
            found = zip(left, pool.map(begin, left), strict=True)
            why |= {instance.id: told for instance, told in found if told}
    for name, told in sorted(why.items()):
        sys.stdout.write(f"{name}: {told}\n")
    loaded = len(every) - len(why)
    sys.stdout.write(f"{loaded} of {len(every)} tasks load\n")
    return 0 if loaded >= 0.95 * len(every) else 1


if __name__ == "__main__":
    sys.exit(main())
