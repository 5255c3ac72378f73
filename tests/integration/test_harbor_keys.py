"""Keys of ``task.toml`` that decide how containers run, tried from inside with a real engine."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from agent.loading import LoadedModel
from evals.grade import GradeOptions, grade
from evals.instance import Verdict
from evals.run.attempt import AgentName
from evals.run.begin import RunOptions, begin
from evals.run.folder import RunFolder
from sandboxes.images.base_image import ensure_base_image
from tests.support.evaluation import call

pytestmark = pytest.mark.docker
REWARD = "/logs/verifier/reward.txt"


@pytest.fixture(scope="module")
def base(docker_engine: docker.DockerClient) -> str:
    return ensure_base_image()


def write_task(
    folder: Path, base: str, config: str, *, made: str = "", tests: str = "", solve: str = "true"
) -> Path:
    """A task folder whose reward is 1 if ``tests`` end with 0."""
    for part in ("environment", "tests", "solution"):
        (folder / part).mkdir(parents=True)
    (folder / "task.toml").write_text(config)
    (folder / "instruction.md").write_text("Do it.\n")
    (folder / "environment" / "Dockerfile").write_text(
        f"FROM {base}\nUSER root\nWORKDIR /app\n{made}\n"
    )
    (folder / "tests" / "test.sh").write_text(f"( {tests} )\n[ $? = 0 ] && echo 1 > {REWARD}\n")
    (folder / "solution" / "solve.sh").write_text(f"{solve}\n")
    return folder


def run(tasks: Path, place: Path, agent: AgentName) -> dict[str, Verdict]:
    """Run and grade all tasks below ``tasks``; return the verdicts by name."""
    options = RunOptions("terminal-bench", str(tasks), place, workers=2, agent=agent)
    begin(options, {})
    grade(GradeOptions(place))
    return {name: verdict for (name, _), verdict in RunFolder(place).grades().items()}


PEOPLE = (
    "RUN for p in ann:x:1500:1500 bob:x:1600:1600; do n=${p%%:*}; "
    "echo $p::/home/$n:/bin/bash >> /etc/passwd; mkdir -p /home/$n; chown ${p##*:} /home/$n; done; "
    "chown 1500 /app\n"
)


def test_users_health_and_variables_are_those_of_the_task(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_HOST", "mine")
    tasks = tmp_path / "tasks"
    write_task(
        tasks / "named",
        base,
        "[agent]\nuser = 'ann'\n[verifier]\nuser = 'bob'\n",
        made=PEOPLE,
        solve="id -un > /app/who; echo $HOME >> /app/who",
        tests="[ $(id -un) = bob ] && [ \"$(cat /app/who)\" = $'ann\\n/home/ann' ]",
    )
    write_task(
        tasks / "image",
        base,
        "",
        made=f"{PEOPLE}USER ann",
        solve="id -un > /app/who",
        tests="[ $(id -un) = ann ] && [ $(cat /app/who) = ann ]",
    )
    write_task(
        tasks / "healthy",
        base,
        "[environment.healthcheck]\n"
        "command = '[ -d /tmp/a ] && touch /tmp/healthy || ! mkdir /tmp/a'\n"
        "interval_sec = 0.1\nretries = 2\n",
        tests="[ -e /tmp/healthy ]",
    )
    compose = write_task(tasks / "compose", base, "", tests="[ $A = mine ] && [ $B = other ]")
    (compose / "environment" / "docker-compose.yaml").write_text(
        "services:\n  main:\n    build: {context: '${CONTEXT_DIR}'}\n    environment:\n"
        "      - A=${FROM_HOST}\n      - B=${NOT_SET:-other}\n"
        "    volumes: ['${HOST_VERIFIER_LOGS_PATH}:${ENV_VERIFIER_LOGS_PATH}']\n"
    )
    verdicts = run(tasks, tmp_path / "run", "oracle")
    assert {name: verdict.reward for name, verdict in verdicts.items()} == dict.fromkeys(
        ("named", "image", "healthy", "compose"), 1.0
    ), verdicts


def test_the_models_shell_and_tools_act_as_the_agents_account(
    base: str, tmp_path: Path, scripted_model: Callable[..., LoadedModel]
) -> None:
    tasks = tmp_path / "tasks"
    tests = "[ $(stat -c %U /app/a) = ann ] && [ $(stat -c %U /app/b) = ann ]"
    write_task(tasks / "named", base, "[agent]\nuser = 'ann'\n", made=PEOPLE, tests=tests)
    model = scripted_model(
        f"Go.\n</think>\n\n{call('write_file', file_path='a', content='x')}",
        f"Go.\n</think>\n\n{call('run_shell_command', command='echo b > b')}",
        f"Done.\n</think>\n\n{call('submit', summary='ok')}",
    )
    begin(RunOptions("terminal-bench", str(tasks), tmp_path / "run"), {}, model=model)
    grade(GradeOptions(tmp_path / "run"))
    (verdict,) = RunFolder(tmp_path / "run").grades().values()
    assert verdict.reward == 1.0, verdict


def test_a_separate_verifier_sees_the_artefacts_and_nothing_else(base: str, tmp_path: Path) -> None:
    """In a container of its own image, with its own variables and network, and its own tests."""
    task = write_task(
        tmp_path / "tasks" / "apart",
        base,
        "artifacts = ['/app/out', {source = 'more', exclude = ['*.log']}]\n"
        "[verifier]\nenvironment_mode = 'separate'\n"
        "[[verifier.collect]]\ncommand = 'echo kept > /app/out/state'\n"
        "[verifier.environment]\nallow_internet = false\nenv = {WHERE = 'apart'}\n",
        solve="mkdir -p out more; echo a > out/a; echo b > more/b; touch more/x.log /app/hidden; "
        "ln -s /etc/passwd out/link; echo p > /logs/artifacts/p",
    )
    (task / "tests" / "Dockerfile").write_text(
        f"FROM {base}\nUSER root\nWORKDIR /judge\nCOPY test.sh /tests/test.sh\n"
    )
    checks = (
        "[ $PWD = /judge ] && [ $WHERE = apart ] && [ $(cat /app/out/a) = a ] && "
        "[ $(cat /app/out/state) = kept ] && [ $(cat /app/more/b) = b ] && [ ! -e /app/more/x.log ]"
        " && [ ! -e /app/hidden ] && [ ! -e /app/out/link ] && [ $(cat /logs/artifacts/p) = p ] "
        "&& ! grep -q eth0 /proc/net/dev"
    )
    (task / "tests" / "test.sh").write_text(f"( set -x; {checks} ) && echo 1 > {REWARD}\n")
    verdicts = run(tmp_path / "tasks", tmp_path / "oracle", "oracle")
    assert verdicts["apart"].reward == 1.0, verdicts
    assert run(tmp_path / "tasks", tmp_path / "nop", "nop")["apart"].reward == 0.0


def test_what_never_gets_ready_or_lacks_bash_is_no_failure_of_the_model(
    base: str, tmp_path: Path
) -> None:
    tasks = tmp_path / "tasks"
    health = "[environment.healthcheck]\ncommand = 'false'\ninterval_sec = 0.01\nretries = 2\n"
    write_task(tasks / "sick", base, health)
    write_task(tasks / "bare", base, "", made="RUN rm -f /bin/bash /usr/bin/bash")
    write_task(tasks / "stranger", base, "[agent]\nuser = 'nobody-here'\n")
    begin(RunOptions("terminal-bench", str(tasks), tmp_path / "run", agent="nop"), {})
    results = RunFolder(tmp_path / "run").results()
    assert {result.exit_status for result in results.values()} == {"environment"}
    assert "never became healthy: 'false' failed 2 times" in results["sick", 1].summary
    assert "has no bash" in results["bare", 1].summary
    assert "has no account 'nobody-here'" in results["stranger", 1].summary


def test_a_reward_that_is_written_afterwards_does_not_count(base: str, tmp_path: Path) -> None:
    """Nor are the tests and the solution there before the agent is done."""
    tests = f"echo 0.25 > {REWARD}; (sleep 0.5; echo 1 > {REWARD}) > /dev/null 2>&1 & false"
    task = write_task(tmp_path / "tasks" / "late", base, "", tests=tests)
    (task / "tests" / "test.sh").write_text(f"{tests}\n")
    solve = "ls /tests > /app/seen 2>&1; ls -d /solution >> /app/seen; true"
    (task / "solution" / "solve.sh").write_text(solve)
    verdicts = run(tmp_path / "tasks", tmp_path / "run", "oracle")
    assert verdicts["late"].reward == 0.25
    folder = RunFolder(tmp_path / "run")
    assert "+ls: cannot access '/tests'" in folder.results()["late", 1].patch
    kept = folder.attempt("late", 1)
    assert json.loads((kept / "verifier.json").read_text())["reward"] == 0.25
    with tarfile.open(kept / "verifier-logs.tar") as logs:
        assert "verifier/test-stdout.txt" in logs.getnames()
