"""Suites that run in images, with a real Docker engine: SWE-bench rows, Terminal-Bench tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest

from agent.events import CallRunning, Event, RunStarted
from agent.loading import LoadedModel, load_model
from agent.sessions.store import SessionStore
from agent.settings.table import Settings
from evals import grade
from evals.errors import DatasetError, GradeError
from evals.references import CheckOptions, check
from evals.report.show import ReportOptions, report
from evals.report.trace import read_trace
from evals.run.attempt import AttemptWorker
from evals.run.begin import RunOptions, begin
from evals.run.folder import RunFolder
from evals.suites import harness
from evals.suites.images import Images, read_map
from evals.suites.repair import Repair
from evals.suites.suite import Machine
from evals.suites.terminal_bench import TerminalBench
from sandboxes.errors import ImageMissing
from sandboxes.images.base_image import ensure_base_image
from sandboxes.images.engine import SESSION_LABEL
from tests.support.evaluation import call, turns, write_tasks

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def base(docker_engine: docker.DockerClient) -> str:
    return ensure_base_image()


@pytest.fixture(scope="module")
def examples(base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three examples as rows of the 5.x format, with their images."""
    file = tmp_path_factory.mktemp("rows") / "examples.jsonl"
    script = ROOT / "scripts" / "example_dataset.py"
    names = ["parity", "anagrams", "clamp"]
    subprocess.run([sys.executable, script, file, "--only", *names], check=True, cwd=ROOT)
    return file


@pytest.mark.slow
def test_the_official_harness_takes_our_predictions_and_agrees_with_our_report(
    examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The embedded model repairs one; one patch repairs nothing; one is empty."""
    folder = tmp_path / "run"
    options = RunOptions("swebench", str(examples), folder, ids=("tenuto__parity-1",), workers=1)
    flags = {"temperature": 0.0, "max_steps": 8, "max_turn_tokens": 512}
    assert begin(options, flags, model=load_model("embedded")) == 0
    (result,) = RunFolder(folder).results().values()
    usage = result.usage
    new = usage["context_tokens"] - usage["generated_tokens"]
    assert usage["prefilled_tokens"] + usage["shared_tokens"] <= 1.1 * new

    rows = {row["instance_id"]: row for row in map(json.loads, examples.read_text().splitlines())}
    wrong = rows["tenuto__anagrams-1"]["patch"].replace("==", "is")
    predictions = json.loads((folder / "preds.json").read_text()) | harness.predictions_of(
        {"tenuto__anagrams-1": wrong, "tenuto__clamp-1": ""}, "tenuto/embedded"
    )
    file = tmp_path / "preds.json"
    file.write_text(json.dumps(predictions))
    assert grade.grade(grade.GradeOptions(folder, file, workers=2)) == 0
    verdicts = {
        name: v for (name, _), v in RunFolder(folder).grades("grades-of-preds.json").items()
    }
    official = harness.summary(RunFolder(folder).grading / "of-preds")
    assert official["schema_version"] == 2
    assert official["resolved_ids"] == ["tenuto__parity-1"]
    assert official["unresolved_ids"] == ["tenuto__anagrams-1"]
    assert official["empty_patch_ids"] == ["tenuto__clamp-1"]
    assert {n for n, v in verdicts.items() if v.resolved} == set(official["resolved_ids"])
    assert verdicts["tenuto__anagrams-1"].reason == "fails test_anagrams.py::test_same_letters"
    # The run's own verdicts stay its own.
    assert RunFolder(folder).grades() == {}
    assert grade.grade(grade.GradeOptions(folder)) == 0
    capsys.readouterr()
    report(ReportOptions(folder, json=True))
    told = json.loads(capsys.readouterr().out)
    assert [(r["instance_id"], r["outcome"]) for r in told["results"]] == [
        ("tenuto__parity-1", "resolved")
    ]

    file.write_text(json.dumps(harness.predictions_of({"unknown": ""}, "tenuto/embedded")))
    with pytest.raises(GradeError, match="'unknown', which the data set has not"):
        grade.grade(grade.GradeOptions(folder, file))
    file.write_text(json.dumps(harness.predictions_of({"tenuto__clamp-1": ""}, "other")))
    with pytest.raises(GradeError, match="is of another run: its model is 'other'"):
        grade.grade(grade.GradeOptions(folder, file))


def test_a_missing_image_is_said_once_and_may_be_mapped(
    examples: Path, tmp_path: Path, scripted_model: Callable[..., LoadedModel]
) -> None:
    rows = [json.loads(line) for line in examples.read_text().splitlines()]
    there = rows[0]["image"]
    rows[0]["image"] = "registry.invalid/none:1"
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps(rows[0]) + "\n")
    model = scripted_model(f"Done.\n</think>\n\n{call('submit', summary='nothing')}")
    options = RunOptions("swebench", str(data), tmp_path / "run", workers=1, pull=False)
    assert begin(options, {}, model=model) == 1
    (result,) = RunFolder(tmp_path / "run").results().values()
    assert (result.exit_status, result.tries) == ("environment", 1)
    assert result.summary.startswith("the image registry.invalid/none:1 is not on this machine")
    names = tmp_path / "map.json"
    names.write_text(json.dumps({"registry.invalid/none*": there.removesuffix(":1") + "*"}))
    mapped = RunOptions(
        "swebench", str(data), tmp_path / "run", workers=1, pull=False, image_map=names
    )
    assert begin(mapped, {}, model=model) == 0
    (result,) = RunFolder(tmp_path / "run").results().values()
    assert (result.exit_status, result.status) == ("submitted", "no_patch")


def test_an_image_that_cannot_be_pulled_is_missing(docker_engine: docker.DockerClient) -> None:
    with pytest.raises(ImageMissing, match="cannot be pulled"):
        Images().ensure("x", "localhost:1/none:1")


def test_images_are_named_by_instance_image_or_beginning(tmp_path: Path) -> None:
    file = tmp_path / "map.json"
    file.write_text(json.dumps({"a-1": "mine:1", "x/*": "mirror/x/*", "y:1": "z:2"}))
    images = Images(read_map(file))
    assert images.resolve("a-1", "x/q:1") == "mine:1"
    assert images.resolve("b", "x/q:1") == "mirror/x/q:1"
    assert images.resolve("b", "y:1") == "z:2"
    assert images.resolve("b", "other:1") == "other:1"
    file.write_text("[1]")
    with pytest.raises(DatasetError, match="must be an object"):
        read_map(file)


@pytest.mark.parametrize(("deaths", "status"), [(1, "submitted"), (9, "environment")])
def test_a_container_that_dies_costs_a_try(
    base: str,
    docker_engine: docker.DockerClient,
    tmp_path: Path,
    scripted_model: Callable[..., LoadedModel],
    deaths: int,
    status: str,
) -> None:
    (instance,) = Repair().load(str(write_tasks(tmp_path / "t.jsonl", 1)))
    machine = Machine(Settings(image=base), Images())
    worker = AttemptWorker(
        Repair(), machine, scripted_model(*turns()), SessionStore(tmp_path / "s")
    )
    session, left = "", deaths

    def listen(event: Event) -> None:
        nonlocal session, left
        if isinstance(event, RunStarted):
            session = event.session
        elif isinstance(event, CallRunning) and left:
            left -= 1
            label = {"label": f"{SESSION_LABEL}={session}"}
            for container in docker_engine.containers.list(filters=label):
                container.kill()

    result = worker.run(instance, 1, listen=listen).result
    assert result.exit_status == status
    assert result.tries == min(deaths + 1, 3)
    assert bool(result.patch) is (status == "submitted")


TASK = """\
version = "1.0"
[agent]
timeout_sec = 120.0
[verifier]
timeout_sec = 60.0
[environment]
allow_internet = false
memory_mb = 512
"""
TESTS = """\
#!/bin/bash
grep -q hello /app/greeting.txt && [ -f /etc/installed ] && [ -f /tests/secret ] || {
  echo 0 > /logs/verifier/reward.txt; exit 1; }
[ -e /app/half ] && { echo 0.5 > /logs/verifier/reward.txt; exit 0; }
echo "all there"
echo 1 > /logs/verifier/reward.txt
"""


def harbor_task(folder: Path, base: str, name: str, *, half: bool = False) -> None:
    """A task folder in Harbor's format."""
    task = folder / name
    for part in ("environment", "tests"):
        (task / part).mkdir(parents=True)
    (task / "task.toml").write_text(TASK)
    (task / "instruction.md").write_text("Write hello into greeting.txt and install it.\n")
    more = "RUN touch /app/half\n" if half else ""
    (task / "environment" / "Dockerfile").write_text(f"FROM {base}\nWORKDIR /app\n{more}")
    (task / "tests" / "test.sh").write_text(TESTS)
    (task / "tests" / "secret").write_text("not for the agent\n")


def test_terminal_bench_tasks_are_graded_by_their_own_tests_in_the_same_container(
    base: str, tmp_path: Path, scripted_model: Callable[..., LoadedModel]
) -> None:
    """The work lies in part outside the working folder; the tests see it and the agent no tests."""
    tasks = tmp_path / "tasks"
    harbor_task(tasks, base, "greet")
    harbor_task(tasks, base, "greet-half", half=True)
    work = "ls /tests 2>&1; echo hello > greeting.txt && touch /etc/installed && id -un"
    model = scripted_model(
        f"Go.\n</think>\n\n{call('run_shell_command', command=work)}",
        f"Done.\n</think>\n\n{call('submit', summary='greets')}",
    )
    options = RunOptions("terminal-bench", str(tasks), tmp_path / "run", workers=2)
    assert begin(options, {}, model=model) == 0
    folder = RunFolder(tmp_path / "run")
    results = folder.results()
    assert "+hello" in results["greet", 1].patch
    record = (folder.attempt("greet", 1) / "trajectory.jsonl").read_text()
    assert "No such file or directory" in record
    assert "root" in record
    assert grade.grade(grade.GradeOptions(folder.path)) == 0
    verdicts = folder.grades()
    assert verdicts["greet", 1].resolved is True
    assert "all there" in verdicts["greet", 1].output
    with tarfile.open(folder.attempt("greet", 1) / "verifier-logs.tar") as kept:
        assert "verifier/test-stdout.txt" in kept.getnames()
    assert (verdicts["greet-half", 1].resolved, verdicts["greet-half", 1].reward) == (False, 0.5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: (t / "task.toml").write_text("[[steps]]\nname = 'a'\n"), "several steps"),
        (lambda t: (t / "tests" / "test.sh").unlink(), "no tests/test.sh, which grading needs"),
        (
            lambda t: (t / "environment" / "Dockerfile").unlink(),
            "neither an image nor a Dockerfile",
        ),
        (lambda t: (t / "task.toml").write_text("="), "cannot be read"),
    ],
)
def test_a_task_that_is_not_supported_is_said_when_it_is_loaded(
    tmp_path: Path, change: Callable[[Path], Any], told: str
) -> None:
    harbor_task(tmp_path, "base", "one")
    change(tmp_path / "one")
    with pytest.raises(DatasetError, match=told):
        TerminalBench().load(str(tmp_path))


SOLVE = "#!/bin/bash\necho hello > /app/greeting.txt\ntouch /etc/installed\n"


def test_the_own_solution_gives_1_and_no_change_0(
    base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``agent eval check`` names the task whose solution does not solve it."""
    tasks = tmp_path / "tasks"
    for name in ("greet", "greet-half"):
        harbor_task(tasks, base, name, half=name == "greet-half")
        (tasks / name / "solution").mkdir()
        (tasks / name / "solution" / "solve.sh").write_text(SOLVE)
    refused = tasks / "windows"
    harbor_task(tasks, base, "windows")
    (refused / "task.toml").write_text("[environment]\nos = 'windows'\n")
    options = CheckOptions("terminal-bench", str(tasks), tmp_path / "check", workers=2)
    assert check(options, {}) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "greet-half: oracle is unsolved (the tests gave 0.5)"
    assert "left out: the task windows needs the system 'windows'" in said.err
    assert "1 of 2 tasks are graded as they should be" in said.err
    oracle = RunFolder(tmp_path / "check" / "oracle")
    assert oracle.grades()["greet", 1].reward == 1.0
    assert "+hello" in oracle.results()["greet", 1].patch
    assert "windows" in oracle.about()["refused"]
    nop = RunFolder(tmp_path / "check" / "nop")
    assert {(v.resolved, v.reward) for v in nop.grades().values()} == {(False, 0.0)}
    assert nop.results()["greet", 1].patch == ""


NETWORKS = {
    "open": "",
    "public": "[environment]\nnetwork_mode = 'public'\n",
    "closed": "[environment]\nallow_internet = false\n",
    "no-network": "[environment]\nnetwork_mode = 'no-network'\nallow_internet = true\n",
}
LOOK = (
    'python3 -c "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); '
    "s.connect(('192.0.2.1', 9)); print('route out')\" 2>&1 | tail -1"
)


@pytest.mark.parametrize("user", ["none", "bridge"])
def test_the_network_is_what_the_task_says_for_agent_and_verifier(
    base: str, tmp_path: Path, scripted_model: Callable[..., LoadedModel], user: str
) -> None:
    """Whatever the user's own setting is; tried from inside, by the agent and by the tests."""
    tasks = tmp_path / "tasks"
    for name, text in NETWORKS.items():
        harbor_task(tasks, base, name)
        (tasks / name / "task.toml").write_text(text)
        tests = tasks / name / "tests" / "test.sh"
        tests.write_text(f"{LOOK}\necho 1 > /logs/verifier/reward.txt\n")
    model = scripted_model(
        f"Go.\n</think>\n\n{call('run_shell_command', command=LOOK)}",
        f"Done.\n</think>\n\n{call('submit', summary='looked')}",
    )
    options = RunOptions("terminal-bench", str(tasks), tmp_path / "run", workers=2)
    assert begin(options, {"network": user}, model=model) == 0
    folder = RunFolder(tmp_path / "run")
    assert grade.grade(grade.GradeOptions(folder.path)) == 0
    for name in NETWORKS:
        wanted = name in ("open", "public")
        observed = read_trace(folder.attempt(name, 1) / "trajectory.jsonl").steps[0].observations
        assert ("route out" in observed[0].text) is wanted, name
        assert ("route out" in folder.grades()[name, 1].output) is wanted, name


@pytest.mark.parametrize(
    ("write", "told"),
    [
        ("true", "left no reward.txt"),
        ("echo nan > $R", "left no number"),
        ("echo 1e9 > $R", r"the reward 1e+09 in reward.txt, which is not in [0, 1]"),
        ("echo -1 > $R", "the reward -1"),
        ("echo '[1]' > $R", "left no number"),
        ("echo 1 > /tmp/r; ln -s /tmp/r $R", "left no reward.txt"),
    ],
)
def test_a_broken_reward_is_an_error_of_the_verifier_and_not_0(
    base: str, tmp_path: Path, write: str, told: str
) -> None:
    harbor_task(tmp_path / "tasks", base, "one")
    script = tmp_path / "tasks" / "one" / "tests" / "test.sh"
    script.write_text(f"R=/logs/verifier/reward.txt\n{write}\n")
    run = tmp_path / "run"
    options = RunOptions("terminal-bench", str(tmp_path / "tasks"), run, workers=1, agent="nop")
    assert begin(options, {}) == 0
    assert grade.grade(grade.GradeOptions(run)) == 1
    (verdict,) = RunFolder(run).grades().values()
    assert verdict.resolved is None
    assert told in verdict.reason


def test_a_project_from_a_specification_is_graded_by_the_share_of_tests_that_pass(
    base: str, docker_engine: docker.DockerClient, tmp_path: Path, scripted_model: Any
) -> None:
    """The agent's own tests and packaging files give way to the original project's."""
    original = tmp_path / "image"
    (original / "tests").mkdir(parents=True)
    (original / "tests" / "test_it.py").write_text(
        "from made import add\n\n\ndef test_a():\n    assert add(1, 2) == 3\n\n\n"
        "def test_b():\n    assert add(0, 0) == 0\n\n\ndef test_c():\n    assert add(1, 1) == 3\n"
    )
    (original / "pytest.ini").write_text("[pytest]\n")
    (original / "Dockerfile").write_text(
        f"FROM {base}\nUSER root\nCOPY tests /workspace/tests\nCOPY pytest.ini /workspace/\n"
    )
    tag = f"tenuto/test-nl2repo-{os.getpid()}:1"
    docker_engine.images.build(path=str(original), tag=tag, rm=True, forcerm=True)
    task = tmp_path / "tasks" / "adder"
    task.mkdir(parents=True)
    (task / "start.md").write_text("# adder\n`made.add(a, b)` adds.\n")
    (task / "test_case_count.txt").write_text("4\n")
    (task / "test_commands.json").write_text('["echo 9 passed", "python3 -m pytest -q"]')
    (task / "test_files.json").write_text('["tests"]')
    broken = tmp_path / "tasks" / "broken"
    broken.mkdir()
    (broken / "test_commands.json").write_text("[]")
    images = tmp_path / "map.json"
    images.write_text(json.dumps({"adder": tag}))
    work = (
        "cat start.md; printf 'def add(a, b):\\n    return a + b\\n' > made.py; mkdir tests; "
        "echo 'def test_x(): pass' > tests/test_x.py; echo garbage > pytest.ini"
    )
    model = scripted_model(
        f"Go.\n</think>\n\n{call('run_shell_command', command=work)}",
        f"Done.\n</think>\n\n{call('submit', summary='adds')}",
    )
    try:
        run = tmp_path / "run"
        options = RunOptions("nl2repo", str(tmp_path / "tasks"), run, workers=1)
        assert begin(options, {}, model=model) == 0
        assert list(RunFolder(run).about()["refused"]) == ["broken"]
        assert grade.grade(grade.GradeOptions(run, image_map=images, pull=False)) == 0
        (verdict,) = RunFolder(run).grades().values()
        assert (verdict.resolved, verdict.reward) == (False, 0.5), verdict.output
        assert verdict.reason == "2 of 4 tests pass"
        # Its image is missing: that is no failure of the model.
        again = grade.GradeOptions(run, pull=False, redo=True)
        assert grade.grade(again) == 1
        (verdict,) = RunFolder(run).grades().values()
        assert verdict.resolved is None
        assert "not on this machine" in verdict.reason
    finally:
        docker_engine.images.remove(tag, force=True)


def test_tasks_and_repairs_are_graded_by_their_check(
    base: str, tmp_path: Path, scripted_model: Callable[..., LoadedModel], git_repo: Any
) -> None:
    repo = git_repo({"a.py": "def f(a, b):\n    return a - b\n"}, name="one1.py")
    check = "python3 -c 'from a import f; assert f(1, 2) == 3'"
    data = tmp_path / "tasks.jsonl"
    rows = [{"id": name, "repo": str(repo), "issue": "Add.", "check": check} for name in "ab"]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mend = "sed -i 's/a - b/a + b/' a.py"
    model = scripted_model(
        f"Go.\n</think>\n\n{call('run_shell_command', command=mend)}",
        f"Done.\n</think>\n\n{call('submit', summary='adds')}",
    )
    assert begin(RunOptions("tasks", str(data), tmp_path / "run", workers=1), {}, model=model) == 0
    file = tmp_path / "preds.json"
    predictions = json.loads((tmp_path / "run" / "preds.json").read_text())
    predictions["b"]["model_patch"] = predictions["a"]["model_patch"].replace("a + b", "b - a")
    file.write_text(json.dumps(list(predictions.values())))
    assert grade.grade(grade.GradeOptions(tmp_path / "run", file)) == 0
    verdicts = RunFolder(tmp_path / "run").grades("grades-of-preds.json")
    assert verdicts["a", 1].resolved is True
    assert verdicts["b", 1].resolved is False
    assert "exit code 1" in verdicts["b", 1].reason
    assert RunFolder(tmp_path / "run").grades() == {}
