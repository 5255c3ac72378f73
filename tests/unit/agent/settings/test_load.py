"""Settings come from four places in one order, and a key nobody knows is an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.settings.load import load_settings
from agent.settings.table import REPOSITORY_KEYS, Settings
from agent.settings.toml_files import user_file
from agent.settings.variables import old_variable_lines, unread_variables


@pytest.fixture(autouse=True)
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in [name for name in os.environ if name.startswith(("AGENT_", "TENUTO_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    return folder


def write_user(text: str) -> None:
    user_file().parent.mkdir(parents=True, exist_ok=True)
    user_file().write_text(text, encoding="utf-8")


def test_defaults_without_any_source(repo: Path) -> None:
    settings = load_settings({}, repo)
    assert (settings.model, settings.sandbox, settings.max_steps) == ("embedded", "docker", 100)
    assert (settings.network, settings.online) == ("none", False)


def test_each_source_outranks_the_next(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_user("max_steps = 1\nmax_tokens = 1\ncommand_timeout = 1\nseed = 1\n")
    (repo / ".agent.toml").write_text("max_steps = 2\nmax_tokens = 2\ncommand_timeout = 2\n")
    monkeypatch.setenv("TENUTO_MAX_STEPS", "3")
    monkeypatch.setenv("TENUTO_MAX_TOKENS", "3")
    settings = load_settings({"max_steps": 4, "model": None}, repo)
    assert settings.max_steps == 4
    assert settings.max_tokens == 3
    assert settings.command_timeout == 2
    assert settings.seed == 1
    assert settings.model == "embedded"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sandbox", '"local"'),
        ("network", "true"),
        ("model", '"/tmp/evil"'),
        ("memory_mb", "99999"),
        ("cpus", "64"),
        ("n", "64"),
        ("seed", "1"),
    ],
)
def test_a_repository_cannot_decide_who_is_trusted(repo: Path, key: str, value: str) -> None:
    (repo / ".agent.toml").write_text(f"{key} = {value}\n")
    with pytest.raises(ConfigError, match=f"sets '{key}', which a repository may not decide"):
        load_settings({}, repo)
    write_user(f"{key} = {value}\n")
    (repo / ".agent.toml").unlink()
    assert key in load_settings({}, repo).model_fields_set


def test_every_repository_key_is_a_setting() -> None:
    assert set(Settings.model_fields) >= REPOSITORY_KEYS


@pytest.mark.parametrize("where", ["user", "repository", "flags"])
def test_an_unknown_key_is_an_error_with_the_nearest_name(repo: Path, where: str) -> None:
    flags = {"max_step": 3} if where == "flags" else {}
    if where == "user":
        write_user("max_step = 3\n")
    elif where == "repository":
        (repo / ".agent.toml").write_text("max_step = 3\n")
    with pytest.raises(ConfigError, match=r"unknown key 'max_step' .*did you mean 'max_steps'"):
        load_settings(flags, repo)


def test_a_key_like_no_other_lists_the_known_ones(repo: Path) -> None:
    write_user("zzz = 1\n")
    with pytest.raises(ConfigError, match=r"known keys: .*max_steps"):
        load_settings({}, repo)


def test_a_misspelt_variable_is_an_error(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENUTO_MAXSTEPS", "3")
    with pytest.raises(ConfigError, match="did you mean TENUTO_MAX_STEPS"):
        load_settings({}, repo)


def test_variables_of_build_servers_are_left_alone(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    azure = "BUILDDIRECTORY HOMEDIRECTORY ID JOBNAME JOBSTATUS MACHINENAME NAME OS OSARCHITECTURE"
    for name in [*azure.split(), "TEMPDIRECTORY", "TOOLSDIRECTORY", "WORKFOLDER", "VERSION"]:
        monkeypatch.setenv(f"AGENT_{name}", "x")
    assert load_settings({}, repo).max_steps == 100


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"max_steps": 0}, "max_steps = 0 in the command line"),
        ({"sandbox": "dokcer"}, "sandbox = 'dokcer' .*'docker', 'bubblewrap' or 'local'"),
        ({"thinking": "forget"}, "thinking = 'forget'"),
        ({"temperature": float("nan")}, "temperature"),
        ({"max_wall_time": float("inf")}, "max_wall_time"),
        ({"check": ""}, "check"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_bad_value_names_key_and_source(
    repo: Path, flags: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_settings(flags, repo)


def test_a_bad_value_in_a_file_names_the_file(repo: Path) -> None:
    (repo / ".agent.toml").write_text('max_steps = "many"\n')
    with pytest.raises(ConfigError, match=r"max_steps = 'many' in .*\.agent\.toml"):
        load_settings({}, repo)


def test_a_broken_file_is_one_line(repo: Path) -> None:
    (repo / ".agent.toml").write_bytes(b"max_steps = \xff\n")
    with pytest.raises(ConfigError, match="is not valid TOML") as caught:
        load_settings({}, repo)
    assert "\n" not in str(caught.value)


def test_a_link_a_folder_a_pipe_and_a_huge_file_are_refused(repo: Path, tmp_path: Path) -> None:
    path = repo / ".agent.toml"
    path.mkdir()
    with pytest.raises(ConfigError, match=r"\.agent\.toml is not a plain file"):
        load_settings({}, repo)
    path.rmdir()
    secret = tmp_path / "secret.toml"
    secret.write_text("max_steps = 5\n")
    path.symlink_to(secret)
    with pytest.raises(ConfigError, match="must be a plain file"):
        load_settings({}, repo)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="not a plain file"):
        load_settings({}, repo)
    path.unlink()
    path.write_bytes(b"#" * 100_000)
    with pytest.raises(ConfigError, match="larger than"):
        load_settings({}, repo)


def test_settings_cannot_be_changed(repo: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings({}, repo).max_steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "mode"),
    [("none", "none"), ("bridge", "bridge"), (True, "bridge"), (False, "none"), ("true", "bridge")],
)
def test_the_network_is_a_mode_and_was_a_boolean(value: object, mode: str) -> None:
    assert load_settings({"network": value}).network == mode


def test_whoever_names_an_image_stands_above_who_named_another(repo: Path) -> None:
    (repo / ".agent.toml").write_text('dockerfile = "Dockerfile"\nsetup = "make deps"\n')
    settings = load_settings({"image": "mine:1"}, repo)
    assert (settings.image, settings.dockerfile) == ("mine:1", None)
    assert load_settings({}, repo).dockerfile == "Dockerfile"
    assert settings.setup == ("make deps",)
    (repo / ".agent.toml").write_text('dockerfile = "Dockerfile"\nimage = "x:1"\n')
    with pytest.raises(ConfigError, match="give one of them"):
        load_settings({}, repo)


@pytest.mark.parametrize("key", ["mounts", "pass_env", "build", "network", "disk_mb"])
def test_a_repository_gives_itself_nothing_of_the_host(key: str, repo: Path) -> None:
    (repo / ".agent.toml").write_text(f'{key} = "1"\n')
    with pytest.raises(ConfigError, match="which a repository may not decide"):
        load_settings({}, repo)


def test_mounts_and_variables_are_checked_at_once(tmp_path: Path) -> None:
    settings = load_settings({"mounts": f"{tmp_path}:/data", "pass_env": "A=1,B"})
    assert settings.mounts == (f"{tmp_path}:/data",)
    assert settings.pass_env == ("A=1", "B")
    with pytest.raises(ConfigError, match="may not be mounted"):
        load_settings({"mounts": ["/proc:/data"]})
    with pytest.raises(ConfigError, match="not the name of a variable"):
        load_settings({"pass_env": ["A B"]})


def test_the_older_names_are_read_and_named(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_MAX_STEPS", "3")
    monkeypatch.setenv("AGENT_SEED", "4")
    monkeypatch.setenv("TENUTO_SEED", "5")
    settings = load_settings({}, repo)
    assert (settings.max_steps, settings.seed) == (3, 5)
    [line] = old_variable_lines()
    assert line.startswith("AGENT_MAX_STEPS is an old name")
    assert line.endswith("set TENUTO_MAX_STEPS")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKDIR", "/home/jenkins/agent"),
        ("BUILD", "1234"),
        ("IMAGE", "ubuntu-22.04"),
        ("N", "x"),
        ("CHECK", "none"),
        ("NETWORK", "corp-lan"),
        ("CPUS", "many"),
        ("MEMORY_MB", "1"),
        ("MODE", "x"),
    ],
)
def test_what_build_servers_set_for_themselves_is_no_setting(
    repo: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"AGENT_{name}", value)
    assert load_settings({}, repo) == Settings()
    assert old_variable_lines() == []
    assert unread_variables() == [f"AGENT_{name}"]


@pytest.mark.parametrize("name", ["TENUTO_SEED", "AGENT_SEED"])
def test_a_bad_value_in_a_variable_names_the_variable(
    repo: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "many")
    with pytest.raises(ConfigError, match=rf"seed = 'many' in {name}: "):
        load_settings({}, repo)


def test_a_byte_order_mark_before_a_file_is_passed_over(repo: Path) -> None:
    mark = b"\xef\xbb\xbf"
    (repo / ".agent.toml").write_bytes(mark + b"max_steps = 3\n")
    write_user("")
    user_file().write_bytes(mark + b"seed = 4\n")
    settings = load_settings({}, repo)
    assert (settings.max_steps, settings.seed) == (3, 4)
