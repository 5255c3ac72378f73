"""The model's terminal, through its tools, in every kind of sandbox."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from sandboxes.base import Sandbox
from tools.registry import Registry
from tools.types import Observation, ToolContext

Call = Callable[..., Observation]


@pytest.fixture
def call(sandbox: Sandbox) -> Call:
    """``call("shell_process", action="list")``; a command may be silent for 0.4 s."""
    sandbox.shell().close()
    registry = Registry(ToolContext(sandbox, silence_s=0.4))
    return lambda name, **arguments: registry.run(name, arguments)


@pytest.fixture
def shell(call: Call) -> Callable[..., str]:
    return lambda command, **more: call("run_shell_command", command=command, **more).text


def started(text: str) -> str:
    found = re.match(r"Started in the background: pid (\d+), output in (\S+)\. ", text)
    assert found, text
    return found[1]


def test_a_silent_command_comes_back(call, shell) -> None:
    said = shell("cd sub; echo one; mkfifo go; read <go; echo two; (exit 3)")
    assert re.fullmatch(r"one\n\[still running after \d+ s: wait for it .*\]", said)
    assert "cd sub; echo one" in call("shell_process", action="list").text
    refused = call("run_shell_command", command="echo three")
    assert not refused.ok and refused.text.startswith("The shell is busy: `cd sub; echo one")
    refused = call("run_shell_command", command="echo four", is_background=True)
    assert not refused.ok and "is busy" in refused.text
    assert call("shell_process", action="read").text.startswith("[still running after")
    assert call("grep_search", pattern="y = 1").ok
    assert call("shell_process", action="stop").text == "[stopped; its processes were killed]"


def test_what_ended_meanwhile_is_told_with_the_next_command(sandbox, shell) -> None:
    assert "still running" in shell("mkfifo go; cd sub; read <../go; (exit 3)")
    sandbox.second_shell().run("echo >go", timeout_s=10)
    for _ in range(10_000):
        if not (said := shell("pwd")).startswith("The shell is busy"):
            break
    assert said == (
        "The command left running, `mkfifo go; cd sub; read <../go; (exit 3)`, has "
        f"ended:\n[exit code 3]\n\n{sandbox.root}/sub\n[exit code 0]"
    )


def test_waiting_gives_the_rest_and_the_exit_code(sandbox, call, shell) -> None:
    assert "still running" in shell("mkfifo go; read word <go; echo got $word; (exit 4)")
    sandbox.second_shell().run("echo x >go", timeout_s=10)
    seen = call("shell_process", action="read", wait=30)
    assert (seen.text, seen.ok) == ("got x\n[exit code 4]", False)
    assert call("shell_process", action="list").text == "Nothing is running."


def test_a_given_time_out_is_waited_for(call, shell) -> None:
    assert shell("echo a; sleep 0.8; echo b", timeout=20) == "a\nb\n[exit code 0]"


def test_an_interrupt_is_ctrl_c(call, shell) -> None:
    program = "import time\nprint('up', flush=True)\ntry: time.sleep(1000)\n"
    program += "except KeyboardInterrupt: print('caught')"
    said = shell(f'export KEPT=1; cd sub; python3 -c "{program}"')
    while "up" not in said:
        said += call("shell_process", action="read", wait=0.1).text
    assert call("shell_process", action="interrupt").text == "caught\n[exit code 0]"
    assert shell("echo $KEPT ${PWD##*/}") == "1 sub\n[exit code 0]"


def test_what_ignores_the_interrupt_is_stopped(call, shell) -> None:
    shell("export KEPT=1; trap '' INT; while :; do sleep 1000; done")
    assert call("shell_process", action="interrupt").text.startswith("[still running")
    assert call("shell_process", action="stop").text.endswith(
        "[stopped; its processes were killed]"
    )
    assert shell("echo $KEPT") == "1\n[exit code 0]"


def test_a_background_process_is_talked_to(call, shell) -> None:
    shell("cd sub; export GREETING=hello")
    program = "name = input('Name? '); print('hi', name, flush=True); input()"
    pid = started(shell(f'pwd; echo $GREETING; python3 -c "{program}"', is_background=True))
    said = ""
    while "Name? " not in said:
        said += call("shell_process", action="read", id=pid).text
    assert "/sub\nhello\n" in said
    seen = call("shell_input", input="Ada", id=pid)
    assert re.search(r"hi Ada\n\[running for \d+ s\]$", seen.text), seen.text
    assert pid in call("shell_process", action="list").text
    assert shell("echo free") == "free\n[exit code 0]"
    ended = call("shell_input", input="bye", end=True)
    assert ended.text == "[ended with exit code 0]"
    assert call("shell_input", input="more", id=pid).text == "[ended with exit code 0]"


def test_the_end_of_input_and_the_exit_code(call, shell) -> None:
    started(shell("cat; exit 7", is_background=True))
    assert call("shell_input", input="one").text.startswith("one\n[running")
    assert call("shell_input", input="", end=True).text == "[ended with exit code 7]"


def test_each_read_gives_what_is_new(call, shell) -> None:
    pid = started(shell("echo 1; read; echo 2; read", is_background=True))
    while "1" not in (seen := call("shell_process", action="read", id=pid).text):
        pass
    assert call("shell_process", action="read", id=pid).text.startswith("[running")
    assert call("shell_input", input="", id=pid).text.startswith("2\n[running"), seen
    stopped = call("shell_process", action="stop", id=pid)
    assert stopped.text == "[ended with exit code 143 (signal 15)]"


def test_an_interrupt_in_the_background(call, shell) -> None:
    program = "import time\ntry: print('up'); time.sleep(1000)\nexcept KeyboardInterrupt: exit(5)"
    pid = started(shell(f'python3 -c "{program}"', is_background=True))
    while "up" not in call("shell_process", action="read", id=pid).text:
        pass
    assert call("shell_process", action="interrupt").text == "[ended with exit code 5]"


def test_one_that_ignores_sigterm_and_daemonises_is_stopped(call, shell, kind) -> None:
    hide = "trap '' TERM; (setsid bash -c \"trap '' TERM; exec sleep 1000.5\" &); exec sleep 1000.5"
    pid = started(shell(hide, is_background=True))
    look = "grep -lz 1000.5 /proc/[0-9]*/cmdline 2>/dev/null | wc -l"
    for _ in range(100):
        if call("grep_search", pattern="x") and shell(look).split()[0] != "0":
            break
    assert call("shell_process", action="stop", id=pid).text == (
        "[ended with exit code 137 (signal 9)]"
    )
    assert shell("pgrep -f '^sleep 1000.5' | wc -l") == "0\n[exit code 0]"


def test_wrong_ids(call, shell) -> None:
    assert call("shell_process", action="read").text == "Nothing is running."
    assert call("shell_process", action="stop", id="shell").text == (
        "No command is running in the shell."
    )
    assert call("shell_process", action="stop", id="1").text == (
        "There is no background process 1. None was started."
    )
    first, second = (started(shell("cat", is_background=True)) for _ in range(2))
    seen = call("shell_process", action="stop")
    assert not seen.ok and first in seen.text and second in seen.text
    for pid in (first, second):
        call("shell_process", action="stop", id=pid)


def test_long_output_is_saved_whole(call, shell) -> None:
    said = shell("seq 100000")
    where = re.search(r"left out; all of it is in (\S+) \.\.\.\]", said)
    assert where, said[14000:16000]
    lines = shell(f"cksum <{where[1]}; seq 100000 | cksum").split("\n")
    assert lines[0] == lines[1]


def test_saved_output_cannot_be_written_inside(call, shell, kind) -> None:
    where = re.search(r"all of it is in (\S+) \.\.\.\]", shell("seq 100000"))
    assert where
    if kind != "local":
        assert "[exit code 0]" not in shell(f"echo x >>{where[1]}")
        assert "[exit code 0]" not in shell(f"rm -f {where[1]}; touch /outputs/x")


def test_binary_output_is_not_shown(call, shell) -> None:
    said = shell("head -c 100000 /dev/urandom; true")
    assert re.fullmatch(
        r"\[binary output, about [\d,]+ bytes, not shown; all of it is in \S+\]\n\[exit code 0\]",
        said,
    ), said[:300]


def test_a_shell_that_dies_while_waited_for(sandbox, call, shell) -> None:
    assert "still running" in shell("echo $$ >pid; sleep 1000")
    sandbox.second_shell().run("kill -9 $(cat pid)", timeout_s=10)
    said = call("shell_process", action="read", wait=30).text
    assert said.startswith("[the shell ended; a new one starts in ")
    assert shell("echo fine") == "fine\n[exit code 0]"
