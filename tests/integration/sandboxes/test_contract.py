"""What every sandbox promises (sandboxes/base.py), held against all three."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandboxes.base import ExecResult, Limits, Sandbox
from sandboxes.errors import PathEscape, SandboxGone
from sandboxes.stop import Stop

Run = Callable[..., ExecResult]


@pytest.fixture
def run(sandbox: Sandbox) -> Run:
    """``run("ls")`` runs a command in the session's shell, new for each test."""
    sandbox.shell().close()

    def do(command: str, **options: Any) -> ExecResult:
        return sandbox.shell().run(command, **{"timeout_s": 60.0} | options)

    return do


def test_a_command_gives_output_and_exit_code(run: Run, sandbox: Sandbox) -> None:
    result = run("pwd; echo err >&2; printf last; (exit 7)")
    assert result.output == f"{sandbox.root}\nerr\nlast"
    assert result.exit_code == 7
    assert (result.timed_out, result.shell_died, result.dropped_bytes) == (False, False, 0)
    assert result.duration_s > 0


def test_folder_and_environment_last(run: Run) -> None:
    run("cd sub; export A='x  y\n\"z'; plain=1; f() { echo from f; }; alias ll=ls")
    assert run('pwd | tail -c 5; printf %s "$A" "$plain"; f').output == ('/sub\nx  y\n"z1from f\n')


@pytest.mark.parametrize(
    "command, output, code",
    [
        ("true", "", 0),
        ("", "", 0),
        ("# only a comment", "", 0),
        ("cat", "", 0),  # standard input is empty
        ("read line; echo got:$line", "got:\n", 0),
        ("head -c 3 /dev/zero | od -An -tx1", " 00 00 00\n", 0),
        ("printf '\\036abc:0:\\036'", "\036abc:0:\036", 0),
        ("printf '\\036'; printf '\\036\\036'", "\036\036\036", 0),
        ("exec 1>&- 2>&-; echo lost", "", 1),
        ("cat <<'X'\na 'b\nX", "a 'b\n", 0),
        ("echo 'two\nlines'\necho $((1 + 1))", "two\nlines\n2\n", 0),
        ("printf 'ü ☃ \\xff'", "ü ☃ \ufffd", 0),
        ("exec 5>&1; echo five >&5; exec 5>&-", "five\n", 0),
        ("exit 3", "", 3),
        ("(exit 4)", "", 4),
        ("set -e; false; echo not here", "", 1),
        ("set -u; echo $nothing_set; true", None, 127),
        ("a\0b=1; echo $ab", "1\n", 0),
        ("sleep 1000 & echo started", "started\n", 0),
        ("(sleep 1000; echo late) & disown; echo started", "started\n", 0),
        ("exec >/dev/null; echo hidden", "", 0),
    ],
)
def test_commands_of_every_sort(command: str, output: str | None, code: int, run: Run) -> None:
    run("cd sub; export KEPT=yes")
    result = run(command)
    assert result.exit_code == code
    if output is not None:
        assert result.output == output
    assert not result.shell_died and not result.timed_out
    # Whatever it was, the next command finds the same folder and environment.
    assert run('echo "${PWD##*/} $KEPT"').output == "sub yes\n"


@pytest.mark.parametrize("command", ["echo 'open", "if true", "cat <(", "}", "((", "a=("])
def test_a_syntax_error_is_an_error_and_no_hang(command: str, run: Run) -> None:
    result = run(command)
    assert result.exit_code not in (0, None)
    assert "syntax error" in result.output or "unexpected EOF" in result.output
    assert run("echo fine").output == "fine\n"


@pytest.mark.parametrize("command", ["kill -9 $$", "kill -9 $BASHPID; sleep 1000"])
def test_a_dead_shell_is_reported_and_replaced(command: str, run: Run, sandbox: Sandbox) -> None:
    run("cd sub; export LOST=1")
    result = run("echo before; " + command)
    assert (result.output, result.exit_code, result.shell_died) == ("before\n", None, True)
    assert run("pwd; echo lost:$LOST").output == f"{sandbox.root}\nlost:\n"


def test_a_shell_that_dies_between_commands_is_replaced(run: Run) -> None:
    run("(read -t 0.05 < <(:); kill -9 $$) & true")
    results = [run("echo here") for _ in range(50)]
    assert results[-1].output == "here\n"


@pytest.mark.parametrize(
    "command",
    [
        "echo first; sleep 1000; echo second",
        "echo first; while :; do :; done",
        "echo first; while :; do sleep 1000; done",
        "echo first; trap '' INT TERM; sleep 1000; sleep 1000",
        "echo first; setsid sleep 1000; echo second",
        "echo first; (sleep 1000 | cat) | cat",
        "echo first; read < <(sleep 1000)",
        "echo first; trap '' USR1; while :; do sleep 1000; done",
    ],
)
def test_a_command_that_never_ends_is_stopped(command: str, run: Run) -> None:
    result = run(command, timeout_s=0.5)
    assert (result.exit_code, result.timed_out, result.shell_died) == (None, True, False)
    assert result.output.startswith("first\n") and "second" not in result.output
    assert result.duration_s < 30
    assert run("echo next").output == "next\n"


def test_a_shell_that_stops_itself_ends_at_once(run: Run) -> None:
    result = run("echo first; kill -STOP $$", timeout_s=60)
    assert (result.exit_code, result.timed_out, result.shell_died) == (None, False, True)
    assert result.output.startswith("first\n")
    assert run("echo next").output == "next\n"


def test_a_time_out_keeps_folder_and_environment(run: Run) -> None:
    run("cd sub; export KEPT='a b'")
    assert run("sleep 1000", timeout_s=0.2).timed_out
    assert run('echo "${PWD##*/} $KEPT"').output == "sub a b\n"


PROCESSES = 'for p in /proc/[0-9]*; do tr "\\0" " " 2>/dev/null <$p/cmdline; echo; done'


def test_a_time_out_kills_what_left_the_process_group(run: Run, sandbox: Sandbox) -> None:
    mark = f"1000{os.getpid()}.5"
    result = run(
        f"setsid sleep {mark} & (setsid nohup sleep {mark} >/dev/null 2>&1 &); sleep 1000",
        timeout_s=0.5,
    )
    assert result.timed_out
    assert f"sleep {mark}" not in run(PROCESSES).output


def test_a_time_out_spares_what_earlier_commands_left_running(run: Run) -> None:
    run("sleep 1000.25 & echo $! >/tmp/pid$$; export PIDS=/tmp/pid$$")
    # Start times are known to a hundredth of a second: let a few of them pass.
    run("until ((SECONDS >= 1)); do :; done")
    assert run("sleep 1000", timeout_s=0.2).timed_out
    assert run("kill -0 $(cat $PIDS) && echo alive").output == "alive\n"
    assert run("kill $(cat $PIDS); rm $PIDS").exit_code == 0


def test_closing_the_shell_ends_what_it_started(run: Run, sandbox: Sandbox) -> None:
    mark = f"1000{os.getpid()}.125"
    run(f"sleep {mark} & setsid sleep {mark} &")
    sandbox.shell().close()
    assert f"sleep {mark}" not in run(PROCESSES).output


def test_a_stop_ends_a_command(run: Run) -> None:
    stop = Stop()
    result = run(
        "echo started; sleep 1000",
        on_output=lambda text: stop.cancel(),
        stop=stop,
    )
    assert result.exit_code is None and result.timed_out
    assert result.output.startswith("started\n")
    assert result.duration_s < 30


def test_an_interrupt_leaves_nothing_running(run: Run) -> None:
    mark = f"1000{os.getpid()}.75"

    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(f"sleep {mark} & echo started; sleep {mark}", on_output=interrupt)
    assert f"sleep {mark}" not in run(PROCESSES).output


def test_output_is_seen_as_it_comes_and_no_character_is_split(run: Run) -> None:
    seen: list[str] = []
    result = run("for i in 1 2 3; do printf 'ü☃😀'; done", on_output=seen.append)
    assert "".join(seen) == result.output == "ü☃😀" * 3


def test_huge_output_keeps_head_and_tail(kind: str, open_kind: Callable[..., Sandbox]) -> None:
    sandbox = open_kind(kind, limits=Limits(output_bytes=10_000))
    total = 1_000_000_000 if kind == "docker" else 200_000_000
    result = sandbox.shell().run(
        f"echo BEGIN; head -c {total} /dev/zero | tr '\\0' x; echo; echo END", timeout_s=150
    )
    assert result.exit_code == 0
    assert result.output.startswith("BEGIN\nxxx") and result.output.endswith("xxx\nEND\n")
    assert result.dropped_bytes == total + 11 - 10_000
    assert len(result.output) < 11_000


SPOKEN = [  # as bash -c would, and the shell lasts with its folder and variables
    (
        "break; echo here",
        "bash: line 1: break: only meaningful in a `for', `while', or `until' loop\nhere\n",
        0,
    ),
    ("for i in 1 2; do continue 3; done; echo here", "here\n", 0),
    ("for i in 1 2; do break 2; done; echo here", "here\n", 0),
    ("case x in x) break;; esac 2>/dev/null; echo here", "here\n", 0),
    ("set -n; echo no", "", 0),
    ("set -e -o noexec\necho no", "", 0),
    ("return 3 2>/dev/null; echo here", "here\n", 0),
    ("trap 'echo E' ERR; false", "E\n", 1),
    ("trap - ERR; trap 'echo D' DEBUG; true", "D\n", 0),
    ("trap - DEBUG", "D\n", 0),
    ("set -x; echo hi", "+++ echo hi\nhi\n", 0),
    ("set +x", "+++ set +x\n", 0),
    ("set -v; echo v", "v\n", 0),
    ("set +v", "set +v\n", 0),
    ("set -T; trap 'echo D' DEBUG; true; trap - DEBUG; set +T", "D\nD\n", 0),
    ("trap 'echo bye' EXIT; trap -p EXIT", "trap -- 'echo bye' EXIT\n", 0),
    ("trap - EXIT; trap", "", 0),
    ("(trap 'echo sub' EXIT; exit 4)", "sub\n", 4),
    ("exec >inner; echo lost; exec 1>&-", "", 0),
    ("exec 21>&1 2>&1; echo kept", "kept\n", 0),
    ("ulimit -n 40; echo $(echo sub)", "sub\n", 0),
    ("ulimit -n 8; echo few", "few\n", 0),
    ("ulimit -S -Hn 3; echo fewer", "fewer\n", 0),
    ("builtin() { echo mine; }; eval() { echo mine; }; echo b", "b\n", 0),
    ("trap", "", 0),
    ("trap -p | cat", "", 0),
    ("set -u; set -o pipefail; echo ${none-unset}; set +u", "unset\n", 0),
    (
        "shopt -s expand_aliases extglob nullglob; alias eval=false printf=false builtin=false",
        "",
        0,
    ),
    ("unalias -a; printf() { echo mine; }; eval() { :; }; exit() { :; }; echo f", "f\n", 0),
    ("unset -f printf eval exit; PROMPT_COMMAND='echo prompt'; PS4=x; IFS=:; echo p", "p\n", 0),
    ("enable -n printf read declare; echo without", "without\n", 0),
    ("readonly code=1 __tenuto_x=2 IFS; echo ro", "ro\n", 0),
    ("unset LINENO BASHPID; unset -f $(compgen -A function) 2>/dev/null; echo un", "un\n", 0),
    ("printf '\\036%s:0:\\036' \"$__tenuto_token\"; (exit 6)", None, 6),
    ("printf '\\036%s:x\\036' \"$__tenuto_token\"; (exit 6)", "", 6),
    ("printf '\\036%s:/\\0declare -x A=1\\036' \"$__tenuto_token\"; (exit 6)", None, 6),
]


def test_what_a_command_does_to_the_shell_reaches_nothing_of_ours(run: Run) -> None:
    run("cd sub; export KEPT=yes; plain=1")
    for command, output, code in SPOKEN:
        result = run(command, timeout_s=10)
        assert (result.exit_code, result.shell_died, result.timed_out) == (code, False, False), (
            command,
            result,
        )
        assert output is None or result.output == output, command
    assert run('echo "${PWD##*/} $KEPT $plain"').output == "sub yes 1\n"


LAST = [  # the command ends the shell, and only what is exported lasts
    ("trap 'echo cleaned' EXIT; exit 0", "cleaned\n", 0),
    ("trap 'echo cleaned' EXIT; exit 4", "cleaned\n", 4),
    ("trap 'echo code $?; exit 9' EXIT; exit 4", "code 4\n", 9),
    ("set -e; trap 'echo cleaned' EXIT; false", "cleaned\n", 1),
    ("trap - EXIT; exit 7", "", 7),
    ("trap -- 'echo a' 0 HUP; exit 3", "a\n", 3),
    ("builtin trap - EXIT; exit 7", "", 7),
    ("command trap 'true' EXIT; exit 7", "", 7),
    ("set -x; exit 3", "+++ exit 3\n", 3),
    ("set -Tx; trap 'echo D' DEBUG; exit 3", None, 3),
    ("set -e; false", "", 1),
    ("exec sh -c 'echo in; exit 3'", "in\n", 3),
    ("exec true", "", 0),
    ("kill $$; echo not here", "", 143),
    ("unset -f $(compgen -A function); exit 5", "", 5),
    ('for f in /proc/$$/fd/*; do n=${f##*/}; eval "exec $n>&-"; done 2>/dev/null', None, None),
]


@pytest.mark.parametrize("command, output, code", LAST)
def test_the_end_of_the_shell_is_that_of_a_script(
    command: str, output: str | None, code: int | None, run: Run
) -> None:
    run("cd sub; export KEPT=yes")
    result = run(command, timeout_s=10)
    assert not result.timed_out and not result.shell_died
    assert code is None or result.exit_code == code
    assert output is None or result.output == output
    assert "tenuto" not in result.output
    assert run('echo "${PWD##*/} $KEPT"').output == "sub yes\n"


@pytest.mark.parametrize("command", ["suspend -f; echo no", "kill -STOP $$; echo no"])
def test_a_shell_that_stops_itself_is_ended(command: str, run: Run) -> None:
    result = run(command, timeout_s=60)
    assert result.shell_died and not result.timed_out
    assert run("echo on").output == "on\n"


def test_what_a_trap_changes_before_it_ends_counts(run: Run) -> None:
    run("cd sub; mkdir -p /tmp/deep")
    assert run("cd /tmp/deep; export LATE=1; trap 'cd /' EXIT; exit 2").exit_code == 2
    assert run('echo "${PWD##*/} $LATE"').output == "deep 1\n"


def test_half_of_an_end_marker_is_output(run: Run) -> None:
    half = "printf '\\036%s:' \"$__tenuto_token\""
    result = run(f"{half}; {half}; head -c 3000000 /dev/zero | tr '\\0' x; (exit 5)", timeout_s=10)
    assert result.exit_code == 5
    assert result.output.endswith("x") and result.dropped_bytes > 1_900_000


def test_files_are_the_same_inside_and_outside(run: Run, sandbox: Sandbox) -> None:
    sandbox.write_bytes("new/ü ☃.txt", b"from outside\r\n")
    assert run("cat 'new/ü ☃.txt'").output == "from outside\r\n"
    assert run("echo more >>'new/ü ☃.txt' && rm a.py && mkdir -p deep/er").exit_code == 0
    assert sandbox.read_bytes(f"{sandbox.root}/new/ü ☃.txt") == b"from outside\r\nmore\n"
    assert sandbox.resolve("deep/er").is_dir()
    assert "deleted file" in sandbox.workspace.diff()


def test_links_made_inside_lead_nowhere_outside(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    run("ln -s /etc/passwd p; ln -s .. up; ln -s $PWD/sub/b.py good; mkfifo pipe")
    for path in ("p", "up/x", "../x", "/etc/passwd"):
        with pytest.raises(PathEscape):
            sandbox.read_bytes(path)
        with pytest.raises(PathEscape):
            sandbox.write_bytes(path, b"x")
    assert sandbox.read_bytes("good") == b"y = 1\n"
    with pytest.raises(OSError, match="not a regular file"):
        sandbox.read_bytes("pipe")


def test_the_environment_is_clean(
    kind: str, open_kind: Callable[..., Sandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    shell = open_kind(kind).shell()
    names = set(shell.run("env | cut -d= -f1", timeout_s=20).output.split())
    own = {"TENUTO_SESSION", "TENUTO_OWNER", "TMPDIR"} if kind == "local" else set()
    assert names - own - {"OLDPWD", "HOSTNAME", "container"} == {
        *("GIT_PAGER", "GIT_TERMINAL_PROMPT", "HOME", "LANG", "LOGNAME", "PAGER", "PATH", "PWD"),
        *("PIP_DISABLE_PIP_VERSION_CHECK", "PYTHONDONTWRITEBYTECODE", "SHLVL", "TERM", "USER"),
        "_",
    }
    assert shell.run('ls -A "$HOME" && touch "$HOME/x"', timeout_s=20).output == ""


def test_git_works_inside(run: Run) -> None:
    assert run("echo z >>a.py; git status --porcelain; git log --format=%s").output == (
        " M a.py\nfirst\n"
    )
    assert run("git commit -qam 'by the model' && git log --format=%s | head -1").output == (
        "by the model\n"
    )


def test_checkpoint_and_rollback_under_a_live_shell(run: Run, sandbox: Sandbox) -> None:
    checkpoint = sandbox.workspace.checkpoint()
    run("cd sub; echo changed >b.py; touch new; mkdir ../other; touch ../other/x")
    assert sandbox.workspace.diff()
    sandbox.workspace.rollback(checkpoint)
    assert sandbox.workspace.diff() == ""
    assert run("cat b.py; echo again >b.py; ls").output == "y = 1\nb.py\n"


def test_close_ends_everything_and_removes_the_copy(
    kind: str, open_kind: Callable[..., Sandbox], places: Path
) -> None:
    mark = f"SLEEPER{os.getpid()}"
    sandbox = open_kind(kind)
    shell = sandbox.shell()
    shell.run(
        f"exec -a {mark} sleep 1000 & setsid bash -c 'exec -a {mark} sleep 1000' &", timeout_s=20
    )
    sandbox.close()
    sandbox.close()
    assert list(places.glob("*")) == []
    assert mark not in "".join(_command_lines())
    with pytest.raises(SandboxGone):
        shell.run("true", timeout_s=5)


def _command_lines() -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                yield (entry / "cmdline").read_text(errors="replace")
            except OSError:
                continue
