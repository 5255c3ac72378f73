"""The tables of the configuration files, and what a repository may not say in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.control.policy import load_policy
from agent.control.rules import Rule
from agent.errors import ConfigError
from agent.settings.load import load_settings
from agent.settings.toml_files import user_file


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def write(text: str) -> None:
        user_file().parent.mkdir(parents=True, exist_ok=True)
        user_file().write_text(text)

    return write


def commands(*patterns: str) -> tuple[Rule, ...]:
    return tuple(Rule("command", pattern) for pattern in patterns)


def test_rules_of_both_hold_and_the_repository_may_only_be_stricter(own, git_repo) -> None:
    own('max_steps = 5\n[rules]\nallow = ["a"]\nask = ["b"]\n')
    repo = git_repo({".agent.toml": '[rules]\nallow = ["c"]\nask = ["d"]\ndeny = ["edit(e)"]\n'})
    policy = load_policy(repo)
    assert policy.rules.allow == commands("a")
    assert policy.rules.ask == commands("b", "d")
    assert policy.rules.deny == (Rule("edit", "e"),)
    (notice,) = policy.notices
    assert "allow rules" in notice
    assert load_settings({}, repo).max_steps == 5


def test_in_a_folder_the_file_at_the_top_counts_too(own, git_repo) -> None:
    own("")
    repo = git_repo(
        {
            ".agent.toml": 'check = "top"\nmax_steps = 7\n[rules]\ndeny = ["a"]\n',
            "sub/.agent.toml": 'check = "sub"\n[rules]\ndeny = ["b"]\n',
            "sub/deep/x": "",
        }
    )
    settings = load_settings({}, repo / "sub")
    assert (settings.check, settings.max_steps) == ("sub", 7)
    assert load_settings({}, repo / "sub" / "deep").check == "top"
    assert load_settings({}, repo).check == "top"
    assert load_policy(repo / "sub").rules.deny == commands("b", "a")


def test_the_servers_of_a_repository_are_used_only_if_the_user_says_so(own, git_repo) -> None:
    own('[mcp.both]\nurl = "http://localhost:1/mine"\n[mcp.mine]\ncommand = ["mine"]\n')
    text = '[mcp.both]\nurl = "http://localhost:2/theirs"\n[mcp.theirs]\ncommand = ["theirs"]\n'
    repo = git_repo({".agent.toml": text})
    policy = load_policy(repo)
    assert {server.name for server in policy.servers} == {"both", "mine"}
    assert "lists MCP servers (theirs); --mcp-from-repo starts them" in policy.notices[0]
    servers = {server.name: server for server in load_policy(repo, mcp_from_repo=True).servers}
    assert set(servers) == {"both", "mine", "theirs"}
    assert servers["both"].url == "http://localhost:1/mine"
    assert servers["theirs"].folder == repo
    assert servers["mine"].folder == Path.home()


def test_hooks_of_a_repository_are_an_error(own, git_repo) -> None:
    own('[[hooks.before]]\ncommand = "true"\ntools = ["edit"]\ntimeout = 5\n')
    assert load_policy(git_repo({})).hooks.before[0].tools == ("edit",)
    repo = git_repo({".agent.toml": '[[hooks.before]]\ncommand = "true"\n'}, name="other")
    with pytest.raises(ConfigError, match="which a repository may not decide"):
        load_policy(repo)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules = 3\n", "rules in "),
        ('[rules]\nalow = ["x"]\n', "rules.alow in "),
        ('[rules]\ndeny = ["write(x)"]\n', "rule 'write(x)': write command("),
        ('[rules]\ndeny = "x"\n', "rules.deny in "),
        ('[[hooks.before]]\ncommand = ""\n', "hooks.before.0.command in "),
        ('[[hooks.middle]]\ncommand = "x"\n', "hooks.middle in "),
        ("[mcp.x]\n", "either a command (a list of words) or a url"),
        ('[mcp.x]\ncommand = ["a"]\nurl = "http://b"\n', "either a command"),
        ('[mcp.x]\nurl = "ftp://b"\n', "mcp.x.url in "),
        ('[mcp."a b"]\nurl = "http://b"\n', "1 to 32 letters"),
        ("[mcp]\nx = 1\n", "mcp.x in "),
        ("mcp = 1\n", "mcp in "),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_place(own, text: str, said: str) -> None:
    own(text)
    with pytest.raises(ConfigError) as caught:
        load_policy()
    assert said in str(caught.value)
    assert str(user_file()) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_gets_only_the_environment_that_is_listed(own, monkeypatch) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    monkeypatch.setenv("OTHER", "hidden")
    monkeypatch.setenv("PATH", "/bin")
    own('[mcp.x]\ncommand = ["a"]\nenv = { A = "1" }\nenv_from = ["TOKEN", "UNSET"]\n')
    (server,) = load_policy().servers
    environment = server.environment()
    assert {"A": "1", "TOKEN": "secret", "PATH": "/bin"}.items() <= environment.items()
    assert set(environment) <= {"A", "TOKEN", "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR"}
