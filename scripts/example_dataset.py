"""Make a SWE-bench data set in the 5.x row format from the example repositories, with its images.

Usage: example_dataset.py FILE.jsonl [--only NAME ...]

Each example becomes an image on this machine (`tenuto/example-NAME:1`): our base image with the
repository in /testbed. The row's eval script writes the tests as they were and runs them with
pytest; its gold patch is the one wrong line put right (`examples/fixes.json`). Which tests fail
before and pass after is found by running them. Needs Docker and the base image.
"""

from __future__ import annotations

import argparse
import difflib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import docker

from sandboxes.errors import SandboxError
from sandboxes.images.base_image import ensure_base_image

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
PYTEST = "python3 -m pytest -rA --tb=short -p no:cacheprovider"


def main() -> int:
    """Write the file; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", nargs="*", default=None)
    options = parser.parse_args()
    try:
        base = ensure_base_image(lambda line: print(line, file=sys.stderr))
    except SandboxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    fixes = json.loads((EXAMPLES / "fixes.json").read_text())
    client = docker.from_env(timeout=120)
    rows = [
        row(name, fix, base, client)
        for name, fix in sorted(fixes.items())
        if options.only is None or name in options.only
    ]
    options.file.write_text("".join(json.dumps(line) + "\n" for line in rows))
    print(f"{len(rows)} rows in {options.file}", file=sys.stderr)
    return 0


def row(name: str, fix: dict[str, str], base: str, client: Any) -> dict[str, Any]:
    """Return the row of one example, whose image is built here."""
    with tempfile.TemporaryDirectory(prefix="tenuto-example-") as scratch:
        repo = Path(scratch) / "testbed"
        subprocess.run([ROOT / "scripts" / "example", name, repo], check=True)
        (repo / "ISSUE.md").unlink()
        git(repo, "rm", "-q", "--cached", "ISSUE.md")
        git(repo, "commit", "-q", "--amend", "-m", f"Example {name}")
        image = build(name, repo, base, client)
        commit = git(repo, "rev-parse", "HEAD")
        (test,) = repo.glob("test_*.py")
        (module,) = (path for path in repo.glob("*.py") if path != test)
        text = module.read_text()
        fixed = text.replace(fix["wrong"], fix["right"])
        assert text.count(fix["wrong"]) == 1
        patch = "".join(
            difflib.unified_diff(
                text.splitlines(True),
                fixed.splitlines(True),
                f"a/{module.name}",
                f"b/{module.name}",
            )
        )
        test_text = test.read_text()
    script = eval_script(test.name, test_text)
    before = outcomes(run_tests(client, image, script, None))
    after = outcomes(run_tests(client, image, script, {module.name: fixed}))
    assert all(after.values()), f"{name}: the gold patch leaves failing tests: {after}"
    return {
        "instance_id": f"tenuto__{name}-1",
        "repo": f"tenuto/{name}",
        "version": "1",
        "base_commit": commit,
        "image": image,
        "problem_statement": (EXAMPLES / name / "ISSUE.md").read_text().strip(),
        "hints_text": "",
        "created_at": "2026-01-01T00:00:00Z",
        "patch": f"diff --git a/{module.name} b/{module.name}\n{patch}",
        "test_patch": "",
        "FAIL_TO_PASS": json.dumps(sorted(t for t in after if not before.get(t))),
        "PASS_TO_PASS": json.dumps(sorted(t for t in after if before.get(t))),
        "log_parser": "parse_log_pytest",
        "eval_type": "pass_and_fail",
        "eval_script": script,
    }


def eval_script(test: str, text: str) -> str:
    """Return the harness's script for /testbed: the tests as they were, between its two markers."""
    return "\n".join(
        [
            "#!/bin/bash",
            "set -uxo pipefail",
            "cd /testbed",
            f"cat > {test} <<'END_OF_TESTS'",
            text.rstrip("\n"),
            "END_OF_TESTS",
            ": '>>>>> Start Test Output'",
            f"{PYTEST} {test}",
            ": '>>>>> End Test Output'",
            f"git checkout -- {test}",
            "",
        ]
    )


def build(name: str, repo: Path, base: str, client: Any) -> str:
    """Build an image with the repository in /testbed."""
    tag = f"tenuto/example-{name.replace('_', '-')}:1"
    dockerfile = (
        f"FROM {base}\nCOPY --chown=0:0 testbed /testbed\n"
        "RUN git config --system --add safe.directory /testbed\nWORKDIR /testbed\n"
    )
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        archive.add(repo, arcname="testbed")
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(dockerfile)
        archive.addfile(info, io.BytesIO(dockerfile.encode()))
    context.seek(0)
    client.images.build(fileobj=context, custom_context=True, tag=tag, rm=True)
    return tag


def run_tests(client: Any, image: str, script: str, files: dict[str, str] | None) -> str:
    """Run the eval script in a fresh container, with ``files`` written first."""
    writes = "".join(
        f"cat > /testbed/{path} <<'END_OF_FILE'\n{text}END_OF_FILE\n"
        for path, text in (files or {}).items()
    )
    output: bytes = client.containers.run(
        image, ["bash", "-c", f"{writes}{script}"], remove=True, network_mode="none", stderr=True
    )
    return output.decode("utf-8", "replace")


def outcomes(output: str) -> dict[str, bool]:
    """Return which tests passed, by pytest's summary."""
    found = {}
    for line in output.splitlines():
        word, _, rest = line.partition(" ")
        if word in ("PASSED", "FAILED"):
            found[rest.partition(" - ")[0]] = word == "PASSED"
    return found


def git(repo: Path, *arguments: str) -> str:
    """Run git there as nobody in particular."""
    quiet = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        **{
            f"GIT_{who}_{what}": "example"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    done = subprocess.run(
        ["git", "-C", str(repo), *arguments], env=quiet, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
