"""The last check sees what the patch gives, whatever the model left elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.run.check import run_check
from sandboxes.base import Sandbox
from sandboxes.open import open_sandbox
from sandboxes.stop import Stop
from sandboxes.workspace.workspace import Workspace

# The processes of a local sandbox are seen by everybody, and this test's neighbours run it too.
SLEEP = f"1000.{os.getpid()}"
LEAVE = rf"""
site=$(python3 -m site --user-site); mkdir -p "$site"
echo 'print("SWAYED by home")' >"$site/usercustomize.py"
echo 'SWAYED by bashrc' >~/.bash_profile
echo SWAYED >"${{TMPDIR:-/tmp}}/answer"
mkdir -p built; echo SWAYED >built/answer
setsid sleep {SLEEP} &
echo right >answer.txt
"""
CHECK = rf"""
cat answer.txt; python3 -c pass; cat "${{TMPDIR:-/tmp}}/answer" built/answer ~/.bash_profile
grep -lzx {SLEEP} /proc/[0-9]*/cmdline 2>/dev/null; true
"""


@pytest.mark.parametrize(
    "kind", [pytest.param("docker", marks=pytest.mark.docker), "bubblewrap", "local"]
)
def test_nothing_but_the_patch_sways_the_last_check(
    kind: str,
    git_repo: Callable[..., Path],
    places: Path,
    request: pytest.FixtureRequest,
) -> None:
    image = request.getfixturevalue("base_image") if kind == "docker" else None
    repo = git_repo({"a.py": "x = 1\n", ".gitignore": "built/\n"})

    def check(sandbox: Sandbox, *, anew: bool) -> str:
        run = run_check(CHECK, sandbox, timeout_s=60, stop=Stop(), anew=anew)
        assert run.exit_code == 0
        return run.output

    with open_sandbox(kind, Workspace.create(repo, parent=places), image=image) as sandbox:
        sandbox.shell().run(LEAVE, timeout_s=60)
        assert "SWAYED by home" in check(sandbox, anew=False)
        said = check(sandbox, anew=True)
        assert said.startswith("right\n") and "SWAYED" not in said and "/proc" not in said
        assert sandbox.shell().run("cat answer.txt", timeout_s=60).output == "right\n"
        assert "+right" in sandbox.workspace.diff()


SWAY = """
chmod 000 tests; git update-index --assume-unchanged a.py; echo 'x = 2' >a.py; git add -A
git -c user.name=a -c user.email=a@b commit --allow-empty -qm mine
touch -d 2001-01-01 b.py .git/index
git config alias.x true; chmod 600 b.py; mkdir -p built; touch built/x; chmod 000 .
"""
LOOK = """
ls tests; git status --porcelain; git log --format=%s; git config alias.x; stat -c %a:%Y b.py
ls built 2>/dev/null; git diff --stat | tail -1
"""


@pytest.mark.parametrize(
    "kind", [pytest.param("docker", marks=pytest.mark.docker), "bubblewrap", "local"]
)
def test_the_last_check_sees_git_modes_and_times_of_the_beginning(
    kind: str, git_repo: Callable[..., Path], places: Path, request: pytest.FixtureRequest
) -> None:
    image = request.getfixturevalue("base_image") if kind == "docker" else None
    repo = git_repo({"a.py": "x = 1\n", "b.py": "", "tests/t.py": "", ".gitignore": "built/\n"})
    (repo / "b.py").chmod(0o640)
    os.utime(repo / "b.py", (1_500_000_000, 1_500_000_000))
    with open_sandbox(kind, Workspace.create(repo, parent=places), image=image) as sandbox:
        sandbox.shell().run(SWAY, timeout_s=60)
        run = run_check(LOOK, sandbox, timeout_s=60, stop=Stop(), anew=True)
        assert run.output == (
            "t.py\n M a.py\nfirst\n640:1500000000\n 1 file changed, 1 insertion(+), 1 deletion(-)\n"
        )
        # And the session goes on with what it had.
        left = sandbox.shell().run("git log --format=%s; ls built", timeout_s=60).output
        assert left == "mine\nfirst\nx\n"
