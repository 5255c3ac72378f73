"""SWE-bench Pro: rows of ``ScaleAI/SWE-bench_Pro``, graded by their makers' own scripts.

The scripts lie in a checkout of ``scaleapi/SWE-bench_Pro-os`` that the user names; nothing of it is
copied. What its ``swe_bench_pro_eval.py`` does in a container is done here in the same order.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker.errors
import requests.exceptions

from evals.errors import DatasetError, GradeError
from evals.instance import Instance, TaskPlace, Verdict
from evals.suites.dataset import read_rows, require, unique
from evals.suites.images import repository_in
from evals.suites.suite import OUTPUT_KEPT, Machine, grade_each
from sandboxes.errors import SandboxUnavailable
from sandboxes.images.engine import OWNER_LABEL, connect, engine_trouble
from sandboxes.paths import Owner

DATASET = "ScaleAI/SWE-bench_Pro"
WORKDIR, HOME = "/app", "/workspace"
MEMORY_MB = 8192
MAX_OUTPUT = 16_000_000
_RUNNING = ("instance_id", "repo", "problem_statement")
_GRADING = ("base_commit", "selected_test_files_to_run")
_LONE = "instance_element-hq__element-web-ec0f940ef0e8e3b61078f145f34dc40d1938e6c5-vnan"
_BINARY = re.compile(r"^(?:Binary files .* differ|GIT binary patch)$", re.MULTILINE)
_DOCKER_ERRORS = (docker.errors.DockerException, requests.exceptions.RequestException)


class SweBenchPro:
    """The suite of SWE-bench Pro."""

    name = "swebench-pro"
    timeout_s = 3600.0
    """Seconds that the makers give the tests of one instance."""

    def load(self, dataset: str | None) -> list[Instance]:
        """Read the rows of a file, or of the published data set."""
        instances = []
        for number, row in enumerate(read_rows(dataset or DATASET), start=1):
            require(row, number, _RUNNING, "the suite swebench-pro")
            name = str(row["instance_id"])
            instances.append(Instance(name, text_of(row), image=image_of(row), row=row))
        return unique(instances)

    @contextmanager
    def place(self, instance: Instance, machine: Machine) -> Iterator[TaskPlace]:
        if machine.settings.sandbox != "docker":
            raise SandboxUnavailable("the suite swebench-pro runs in images; use --sandbox docker")
        assert instance.image is not None
        image = machine.images.ensure(instance.id, instance.image)
        with repository_in(image, WORKDIR) as (repo, search_path):
            settings = {
                "image": image,
                "workdir": WORKDIR,
                "search_path": search_path,
                "ignored_files": True,
            }
            yield TaskPlace(repo, settings)

    def grade(
        self,
        instances: Sequence[Instance],
        patches: Mapping[str, str],
        machine: Machine,
        *,
        folder: Path,
        workers: int = 1,
    ) -> list[Verdict]:
        """Run the makers' scripts over each patch. Raises ``GradeError`` without a checkout."""
        checkout = machine.scripts
        if checkout is None or not (checkout / "run_scripts").is_dir():
            raise GradeError(
                "grading swebench-pro needs --scripts FOLDER, a checkout of "
                "scaleapi/SWE-bench_Pro-os with its folders run_scripts and dockerfiles"
            )

        def one(instance: Instance, patch: str) -> Verdict:
            try:
                files = files_of(instance.row, patch, checkout)
                wanted = _wanted(instance.row)
            except (OSError, DatasetError) as error:
                return Verdict(instance.id, None, reason=f"not graded: {error}")
            image = machine.images.ensure(instance.id, str(instance.image))
            left = _run(image, files, machine)
            place = folder / instance.id
            place.mkdir(parents=True, exist_ok=True)
            for name, data in left.items():
                (place / name).write_bytes(data)
            return _verdict(instance.id, wanted, left)

        return grade_each(one, instances, patches, workers)


def text_of(row: Mapping[str, Any]) -> str:
    """Return the model's task in the makers' wording."""
    return (
        f"{row['problem_statement']}\n\nRequirements:\n{row.get('requirements') or ''}\n\n"
        f"New interfaces introduced:\n{row.get('interface') or ''}"
    )


def image_of(row: Mapping[str, Any]) -> str:
    """Return the published image of a row: its tag, or the one made of its id and repository."""
    if row.get("dockerhub_tag"):
        return f"jefzda/sweap-images:{row['dockerhub_tag']}"
    name = str(row["instance_id"])
    owner, _, repo = str(row["repo"]).lower().partition("/")
    rest = name.replace("instance_", "")
    if name != _LONE:
        repo = "element" if (owner, repo) == ("element-hq", "element-web") else repo
        rest = rest.removesuffix("-vnan")
    return f"jefzda/sweap-images:{f'{owner}.{repo}-{rest}'[:128]}"


def literal_list(row: Mapping[str, Any], key: str) -> list[str]:
    """Return a list that the row holds, perhaps as Python text. Raises ``DatasetError``."""
    value = row.get(key)
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise DatasetError(f"{row.get('instance_id')}: {key} is no list") from error
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DatasetError(f"{row.get('instance_id')}: {key} is no list of texts")
    return value


def files_of(row: Mapping[str, Any], patch: str, checkout: Path) -> dict[str, str]:
    """Return the files that lie in ``/workspace`` while the tests run.

    Raises ``OSError`` if the checkout lacks one, and ``DatasetError``.
    """
    require(dict(row), 1, _GRADING, "grading swebench-pro")
    name = str(row["instance_id"])
    scripts, recipes = checkout / "run_scripts" / name, checkout / "dockerfiles"
    variables = []
    for kind in ("base_dockerfile", "instance_dockerfile"):
        text = (recipes / kind / name / "Dockerfile").read_text("utf-8")
        lines = (line.strip() for line in text.split("\n"))
        variables += [line.replace("ENV", "export", 1) for line in lines if line.startswith("ENV")]
    before = str(row.get("before_repo_set_cmd") or "").strip().split("\n")[-1]
    tests = ",".join(literal_list(row, "selected_test_files_to_run"))
    commit = str(row["base_commit"])
    if not re.fullmatch(r"[0-9A-Za-z._/-]+", commit):
        raise DatasetError(f"{name}: {commit!r} is no commit")
    steps = [
        *variables,
        f"cd {WORKDIR}",
        f"git reset --hard {commit}",
        f"git checkout {commit}",
        f"git apply -v {HOME}/patch.diff",
        before,
        f"bash {HOME}/run_script.sh {tests} > {HOME}/stdout.log 2> {HOME}/stderr.log",
        f"python {HOME}/parser.py {HOME}/stdout.log {HOME}/stderr.log {HOME}/output.json",
    ]
    return {
        "patch.diff": without_binaries(patch),
        "run_script.sh": (scripts / "run_script.sh").read_text("utf-8"),
        "parser.py": (scripts / "parser.py").read_text("utf-8"),
        "entryscript.sh": "\n".join(steps) + "\n",
    }


def without_binaries(patch: str) -> str:
    """Return a patch without its binary sections, as the makers apply it."""
    sections = re.split(r"(?=^diff --git )", patch, flags=re.MULTILINE)
    return "".join(s for s in sections if s.strip() and not _BINARY.search(s))


def predictions_of(patches: Mapping[str, str], prefix: str) -> list[dict[str, str]]:
    """Return predictions in the form that the makers' script takes."""
    return [
        {"instance_id": name, "patch": patch, "prefix": prefix} for name, patch in patches.items()
    ]


def _wanted(row: Mapping[str, Any]) -> list[str]:
    return [*literal_list(row, "fail_to_pass"), *literal_list(row, "pass_to_pass")]


def _run(image: str, files: Mapping[str, str], machine: Machine) -> dict[str, bytes]:
    """Run the entry script in a fresh container; return the files that it left, by name.

    The container has the network, as the makers' has: some scripts install packages. Raises
    ``SandboxUnavailable``.
    """
    settings = machine.settings
    limit = settings.check_timeout
    client = connect(timeout=int(limit) + 120)
    container: Any = None
    try:
        container = client.containers.create(
            image,
            ["-c", "sleep infinity"],
            entrypoint="/bin/bash",
            user="root",
            init=True,
            labels={OWNER_LABEL: str(Owner.of_this_process())},
            network_mode="bridge",
            mem_limit=f"{max(settings.memory_mb, MEMORY_MB)}m",
            nano_cpus=int(settings.cpus * 1e9),
            pids_limit=4096,
            security_opt=["no-new-privileges"],
        )
        container.put_archive("/", _packed(files))
        container.start()
        command = ["timeout", "-k", "10", f"{limit:g}", "bash", f"{HOME}/entryscript.sh"]
        done = container.exec_run(command)
        left = {"entryscript.log": done.output[-MAX_OUTPUT:]}
        if done.exit_code == 124:
            left["late"] = f"the tests ran over {limit:g} s".encode()
        for name in ("output.json", "stdout.log", "stderr.log"):
            found = container.exec_run(["head", "-c", str(MAX_OUTPUT), f"{HOME}/{name}"])
            if found.exit_code == 0:
                left[name] = found.output
        return left
    except docker.errors.APIError as error:
        told = " ".join(str(error).split())[:200]
        raise SandboxUnavailable(f"the tests could not run in {image}: {told}") from error
    except _DOCKER_ERRORS as error:
        raise engine_trouble(error) from error
    finally:
        if container is not None:
            with suppress(*_DOCKER_ERRORS):
                container.remove(force=True, v=True)
        client.close()


def _packed(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            data = text.encode("utf-8", "surrogateescape")
            member = tarfile.TarInfo(f"{HOME[1:]}/{name}")
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _verdict(name: str, wanted: Iterable[str], left: Mapping[str, bytes]) -> Verdict:
    """Resolved means that every wanted test is among those that passed."""
    log = b"\n".join(left.get(key, b"") for key in ("entryscript.log", "stdout.log", "stderr.log"))
    output = log[-OUTPUT_KEPT:].decode("utf-8", "replace")
    if "late" in left:
        return Verdict(name, None, reason=f"not graded: {left['late'].decode()}", output=output)
    try:
        tests = json.loads(left["output.json"])["tests"]
        passed = {str(test["name"]) for test in tests if test["status"] == "PASSED"}
    except (KeyError, TypeError, ValueError, RecursionError):
        return Verdict(name, False, reason="the makers' parser wrote no result", output=output)
    failed = [test for test in wanted if test not in passed]
    more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
    reason = f"fails {', '.join(failed[:3])}{more}" if failed else ""
    return Verdict(name, not failed, float(not failed), reason, output)
