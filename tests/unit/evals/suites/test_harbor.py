"""Task folders in Harbor's format: every key is honoured, or refuses that task by its name."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.settings.table import Settings
from evals.errors import DatasetError
from evals.instance import TaskPlace, Verdict
from evals.run.begin import RunOptions, identity
from evals.suites.harbor import HarborTask, RefusedTask, read_task, with_longer_limits
from evals.suites.suite import combine, settings_for
from evals.suites.terminal_bench import TerminalBench


def task(text: str) -> HarborTask:
    return read_task("one", tomllib.loads(text))


def write_task(folder: Path, text: str = "version = '1.0'\n") -> Path:
    for part in ("environment", "tests"):
        (folder / part).mkdir(parents=True)
    (folder / "task.toml").write_text(text)
    (folder / "instruction.md").write_text("Do it.\n")
    (folder / "environment" / "Dockerfile").write_text("FROM tenuto/base:1\n")
    (folder / "tests" / "test.sh").write_text("echo 1 > /logs/verifier/reward.txt\n")
    return folder


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("memory_mb = 512", 512),
        ("memory = '2G'", 2048),
        ("memory = '512M'", 512),
        ("memory = '1.5Gi'", 1536),
        ("memory = '2GB'", 2048),
        ("memory = '2048K'", 2),
        ("memory = '2G'\nmemory_mb = 512", 512),
        ("", None),
    ],
)
def test_memory_and_storage_have_two_forms(line: str, size: int | None) -> None:
    assert task(f"[environment]\n{line}").memory_mb == size
    assert task(f"[environment]\n{line.replace('memory', 'storage')}").storage_mb == size


@pytest.mark.parametrize(
    ("lines", "online"),
    [
        ("", True),
        ("allow_internet = true", True),
        ("allow_internet = false", False),
        ("network_mode = 'public'", True),
        ("network_mode = 'no-network'", False),
        ("network_mode = 'public'\nallow_internet = false", True),
        ("network_mode = 'no-network'\nallow_internet = true", False),
    ],
)
def test_the_network_is_what_the_task_says(lines: str, online: bool) -> None:
    assert task(f"[environment]\n{lines}").online is online


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[environment]\nnetwork_mode = 'allowlist'", "allowed_hosts"),
        ("[environment]\nallowed_hosts = ['a.example']", "allowed_hosts"),
        ("[environment]\nnetwork_mode = 'host'", "must be public, no-network or allowlist"),
        ("[environment]\nallow_internet = 'no'", "must be true or false"),
        ("[agent]\nnetwork_mode = 'no-network'", r"agent\.network_mode"),
        ("[verifier]\nnetwork_mode = 'no-network'", r"verifier\.network_mode"),
        ("[environment]\nmemory = 'much'", "must be a size like 2G"),
        ("[environment]\nmemory_mb = '2G'", "must be a number above 0"),
        ("[environment]\ncpus = 0", "must be a number above 0"),
        ("[environment]\ncpus = true", "must be a number above 0"),
        ("[agent]\ntimeout_sec = nan", "must be a number above 0"),
        ("environment = 3", "environment is 3 and must be a table"),
        ("[environment]\ngpus = 1", r"a GPU \(environment\.gpus\)"),
        ("[environment]\nos = 'windows'", "the system 'windows'"),
        ("[environment]\nmcp_servers = [{name = 'x'}]", r"environment\.mcp_servers"),
        ("[environment]\ntpu = {type = 'v5'}", r"environment\.tpu"),
        ("[environment]\nmemroy_mb = 3", r"environment\.memroy_mb"),
        ("[verifier]\ncollect = ['/a']", r"verifier\.collect"),
        ("[agent]\nuser = true", "must be the name or number of an account"),
        ("[environment.healthcheck]\nretries = 1", "healthcheck.command is None"),
        ("[environment.healthcheck]\ncommand = 'x'\nretries = 0", "retries is 0"),
        ("[environment.healthcheck]\ncommand = 'x'\ntimeout_sec = 'a'", "timeout_sec is 'a'"),
        ("[verifier]\nenvironment_mode = 'both'", "must be shared or separate"),
        ("[verifier]\nenvironment_mode = 'shared'\nenvironment = {}", "must be separate"),
        ("[verifier.environment]\nskills_dir = '/s'", r"verifier\.environment\.skills_dir"),
        ("[verifier.environment]\ngpus = 1", r"verifier\.environment\.gpus"),
        ("artifacts = ['../a']", "must be paths without"),
        ("artifacts = 'a'", "must be a list"),
        ("artifacts = [{source = '/a', service = 'db'}]", r"artifacts\.service"),
        ("verifier = {collect = [{command = 'a', service = 'db'}]}", r"collect\.service"),
        ("[[steps]]\nname = 'a'", "several steps"),
        (
            "[verifier]\nenv = {KEY = '${NO_SUCH_KEY}'}",
            r"the variable NO_SUCH_KEY \(verifier\.env\)",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_name(text: str, told: str) -> None:
    with pytest.raises(RefusedTask, match=told):
        task(text)


@pytest.mark.parametrize(
    "text",
    [
        "[environment]\ngpus = 0\nmcp_servers = []\nskills_dir = ''",
        "[agent]\nuser = 'root'",
        "[verifier]\nenvironment_mode = 'shared'",
        "[metadata]\nauthor = 'x'\nanything = [1]",
    ],
)
def test_a_key_that_says_nothing_refuses_nothing(text: str) -> None:
    assert task(text).online


def test_variables_come_from_the_host_or_their_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN", "mine")
    found = task("[environment]\nenv = {A = '${OWN}', B = '${NONE:-other}', C = 'x${OWN}y'}")
    assert found.environment == {"A": "mine", "B": "other", "C": "xminey"}


def test_a_separate_verifier_has_its_own_environment() -> None:
    text = """
        artifacts = ['/a', {source = 'b', exclude = ['*.log']}]
        [agent]
        user = 1000
        [environment]
        memory = '2G'
        [verifier]
        user = 'judge'
        [[verifier.collect]]
        command = 'true'
        [verifier.environment]
        network_mode = 'no-network'
        cpus = 3
        """
    found = task(text)
    assert found.verifier is not None
    assert (found.online, found.verifier.online) == (True, False)
    assert (found.memory_mb, found.verifier.memory_mb, found.verifier.cpus) == (2048, None, 3)
    assert (found.user, found.verifier_user) == ("1000", "judge")
    assert [a.source for a in found.artifacts] == ["/a", "b"]
    assert found.collect[0].timeout_s == 60
    again = task("[environment]\nmemory_mb = 9\n[verifier]\nenvironment_mode = 'separate'")
    assert again.verifier is not None
    assert again.verifier.memory_mb == 9


def test_a_factor_multiplies_the_limits_that_a_task_brings() -> None:
    found = with_longer_limits(task("[agent]\ntimeout_sec = 10\n[verifier]\ntimeout_sec = 4"), 1.5)
    assert (found.agent_timeout_s, found.verifier_timeout_s) == (15, 6)
    assert found.build_timeout_s is None


def test_a_run_with_other_limits_is_another_run() -> None:
    settings = Settings()
    usual = identity(RunOptions("terminal-bench"), settings)
    longer = identity(RunOptions("terminal-bench", time_factor=1.5), settings)
    assert longer == usual | {"time_factor": 1.5}


def test_an_image_of_the_task_stands_above_one_to_be_built() -> None:
    own = Settings(dockerfile="Dockerfile", setup=("true",))
    found = combine(own, {"image": "task:1"})
    assert (found.image, found.dockerfile, found.setup) == ("task:1", None, ())


MAIN = "services:\n  main:\n    "


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[", "cannot be read"),
        ("services: [a]", "services must be a table"),
        (f"{MAIN}privileged: true", r"main\.privileged"),
        (f"{MAIN}volumes: ['/:/host']", r"main\.volumes"),
        (f"{MAIN}environment: ['A=${{NO_SUCH_KEY}}']", "the variable NO_SUCH_KEY"),
        (f"{MAIN}environment: 3", "must be a table or a list"),
    ],
)
def test_a_compose_file_is_honoured_or_refused_by_its_key(
    tmp_path: Path, text: str, told: str
) -> None:
    write_task(tmp_path / "one")
    (tmp_path / "one" / "environment" / "docker-compose.yaml").write_text(text)
    with pytest.raises(DatasetError, match=told):
        TerminalBench().load(str(tmp_path))


def test_one_refused_task_costs_that_task(tmp_path: Path) -> None:
    write_task(tmp_path / "fine")
    write_task(tmp_path / "hosts", "[environment]\nnetwork_mode = 'allowlist'\n")
    write_task(tmp_path / "broken", "=")
    instances = {instance.id: instance for instance in TerminalBench().load(str(tmp_path))}
    assert instances["fine"].refused == ""
    assert "the task hosts needs a network of certain hosts" in instances["hosts"].refused
    assert "cannot be read" in instances["broken"].refused
    with pytest.raises(DatasetError, match="the task hosts needs"):
        TerminalBench().load(str(tmp_path / "hosts"))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: (t / "instruction.md").write_text("Do something else.\n"),
        lambda t: (t / "tests" / "test.sh").write_text("exit 1\n"),
        lambda t: (t / "tests" / "more").write_text(""),
        lambda t: (t / "environment" / "Dockerfile").write_text("FROM other\n"),
    ],
)
def test_a_task_is_another_one_when_its_files_change(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    folder = write_task(tmp_path / "one")
    (before,) = TerminalBench().load(str(folder))
    change(folder)
    (after,) = TerminalBench().load(str(folder))
    assert before.digest != after.digest
    moved = folder.rename(tmp_path / "elsewhere").rename(tmp_path / "one")
    assert TerminalBench().load(str(moved))[0].digest == after.digest


def test_settings_that_a_task_decides_are_checked() -> None:
    """A plain copy of the settings took anything: ``network`` was a boolean and so always on."""
    place = TaskPlace(Path(), {"network": False})
    assert settings_for(Settings(network="bridge"), place).online is False
    with pytest.raises(ConfigError, match="cpus"):
        combine(Settings(), {"cpus": -1})


@pytest.mark.parametrize("reward", [1e9, -0.1, float("nan"), float("inf")])
def test_a_verdict_has_a_reward_in_the_unit_interval(reward: float) -> None:
    with pytest.raises(ValueError, match=r"is not in \[0, 1\]"):
        Verdict("a", None, reward)
