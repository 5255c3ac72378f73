"""Approvals: what mode and rules make of a call, and how long an answer holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.control.approvals import Answer, Approvals, Mode, Request, Verdict
from agent.control.rules import Rules
from model.messages import ToolCall
from sandboxes.open import open_sandbox
from sandboxes.workspace.workspace import Workspace
from tools.registry import Registry, default_tools
from tools.todo_write import TodoWriteParameters
from tools.types import Observation, ToolContext, ToolSpec


class Person:
    """Always gives the same answer, and keeps what was asked."""

    def __init__(self, verdict: Verdict = "allow", words: str = "") -> None:
        self.answer = Answer(verdict, words)
        self.requests: list[Request] = []

    def ask(self, request: Request) -> Answer:
        self.requests.append(request)
        return self.answer

    @property
    def asked(self) -> list[tuple[str, ...]]:
        return [request.subjects for request in self.requests]


@pytest.fixture
def registry(git_repo: Callable[..., Path], tmp_path: Path) -> Iterator[Registry]:
    files = {"a.py": "x = 1\n", "secret/key": "k\n"}
    workspace = Workspace.create(git_repo(files), parent=tmp_path / "workspaces")
    outside = ToolSpec(
        "mcp__hub__delete",
        "d",
        TodoWriteParameters,
        lambda context, parameters: Observation("gone"),
        kind="external",
        subject="hub.delete",
    )
    with open_sandbox("local", workspace) as opened:
        yield Registry(ToolContext(opened), (*default_tools(), outside))


def command(text: str, **more: object) -> ToolCall:
    return ToolCall("run_shell_command", {"command": text, **more})


def write(path: str) -> ToolCall:
    return ToolCall("write_file", {"file_path": path, "content": "new\n"})


READ = ToolCall("read_file", {"file_path": "secret/key"})
DELETE = ToolCall("mcp__hub__delete", {})


@pytest.mark.parametrize(
    ("mode", "call", "asked"),
    [
        ("commands", command("a && b | c"), [("a", "b", "c")]),
        ("commands", command("cd x; pwd"), []),
        ("commands", command("echo x > f"), [("echo x",)]),
        ("edits", command("echo x > f"), [("edit(f)",)]),
        ("all", command("echo x > f"), [("echo x", "edit(f)")]),
        ("edits", command("echo x > f", directory="secret"), [("edit(secret/f)",)]),
        ("never", command("a"), []),
        ("commands", command("exec 3<>f"), [("exec 3<>f",)]),
        ("commands", ToolCall("shell_input", {"input": "a && b"}), [("a", "b")]),
        ("commands", write("a.py"), []),
        ("edits", write("./x/../a.py"), [("edit(a.py)",)]),
        ("edits", DELETE, []),
        ("commands", DELETE, [("mcp(hub.delete)",)]),
        ("all", READ, []),
        ("all", ToolCall("submit", {}), []),
        ("all", ToolCall("no_such_tool", {}), []),
    ],
)
def test_what_a_mode_asks_for(mode: Mode, call: ToolCall, asked, registry: Registry) -> None:
    person = Person()
    assert Approvals(mode, person).before(call, registry) is None
    assert person.asked == asked


RULES = Rules.parse(
    allow=["pytest *", "edit(*.py)", "mcp(hub.*)"],
    ask=["git *", "read(secret)"],
    deny=["git push *", "edit(secret/**)", "tool(glob)"],
)


@pytest.mark.parametrize(
    ("mode", "call", "asked"),
    [
        ("all", command("pytest -x && a"), [("a",)]),
        ("all", command("pytest -x && git status"), [("git status",)]),
        ("all", write("a.py"), []),
        ("all", DELETE, []),
        ("never", command("git status; a"), [("git status",)]),
        ("never", command("exec 3<>f"), [("exec 3<>f",)]),
        ("never", READ, [("read(secret/key)",)]),
        (
            "never",
            ToolCall("read_file", {"file_path": "x/../secret/./key"}),
            [("read(secret/key)",)],
        ),
        ("never", ToolCall("read_file", {"file_path": "../../etc/passwd"}), []),
    ],
)
def test_rules_come_before_the_mode(mode: Mode, call: ToolCall, asked, registry: Registry) -> None:
    person = Person()
    assert Approvals(mode, person, RULES).before(call, registry) is None
    assert person.asked == asked


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (command("a; git push x"), "the rule git push * forbids git push x"),
        (write("secret/key"), "the rule edit(secret/**) forbids edit(secret/key)"),
        (command("a > secret/key"), "the rule edit(secret/**) forbids edit(secret/key)"),
        (ToolCall("glob", {"pattern": "*"}), "the rule tool(glob) forbids tool(glob)"),
    ],
)
@pytest.mark.parametrize("mode", ["never", "all"])
def test_what_is_denied_is_not_asked_for(mode: Mode, call, words, registry: Registry) -> None:
    person = Person()
    refused = Approvals(mode, person, RULES).before(call, registry)
    assert refused is not None
    assert not refused.ok
    assert words in refused.text
    assert person.requests == []


def test_an_ask_rule_that_nobody_can_answer_refuses(registry: Registry) -> None:
    refused = Approvals("never", None, RULES).before(command("git status"), registry)
    assert refused is not None
    assert "(rule git *), and nobody can be asked" in refused.text


@pytest.mark.parametrize(
    ("first", "then", "asked_again"),
    [
        ("make all", "make other", False),
        ("git status -s", "git status", False),
        ("git status", "git commit", True),
        ("python3 -m pytest a", "python3 -m pytest b", False),
        ("python3 x.py", "python3 x.py", False),
        ("python3 x.py", "python3 y.py", True),
        ("rm a", "rm b", True),
        ("make $X", "make $X", False),
        ("make $X", "make $Y", True),
        ("sudo make", "sudo rm x", True),
        ("A=1 make", "A=1 make", False),
        ("A=1 make", "PATH=. make", True),
        ("exec 3<>f", "exec 3<>f", False),
        ("exec 3<>f", "exec 4<>f", True),
    ],
)
def test_how_far_always_reaches(first: str, then: str, asked_again, registry: Registry) -> None:
    person = Person("allow_always")
    approvals = Approvals("all", person, RULES)
    assert approvals.before(command(first), registry) is None
    assert approvals.before(command(then), registry) is None
    assert len(person.requests) == 1 + asked_again


def test_always_for_an_edit_is_for_all_that_no_rule_denies(registry: Registry) -> None:
    person = Person("allow_always")
    approvals = Approvals("all", person, RULES)
    assert approvals.before(write("one"), registry) is None
    assert approvals.before(write("two"), registry) is None
    assert person.requests[0].always == ("edit(**)",)
    assert len(person.requests) == 1
    assert approvals.before(write("secret/key"), registry) is not None


def test_never_is_for_this_alone_and_is_not_asked_again(registry: Registry) -> None:
    person = Person("reject_always", "no")
    approvals = Approvals("commands", person)
    for _ in range(2):
        assert approvals.before(command("make a"), registry) is not None
    assert len(person.requests) == 1
    approvals.before(command("make b"), registry)
    assert len(person.requests) == 2


def test_answers_hold_in_a_session_that_goes_on(registry: Registry, tmp_path: Path) -> None:
    asked = Approvals("all", Person("allow_always")).kept_in(tmp_path)
    assert asked.before(command("make all"), registry) is None
    asked.approver = Person("reject_always")
    assert asked.before(command("rm a"), registry) is not None
    person = Person()
    again = Approvals("all", person, RULES).kept_in(tmp_path)
    assert again.before(command("make other"), registry) is None
    assert again.before(command("rm a"), registry) is not None
    assert person.requests == []
    elsewhere = Approvals("all", person)
    assert elsewhere.before(command("make other"), registry) is None
    assert person.asked == [("make other",)]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"allowed": [["command"]], "given": {}}', b'{"given": 5}']
)
def test_damaged_answers_cost_a_question(content: bytes, registry, tmp_path: Path) -> None:
    (tmp_path / "approvals.json").write_bytes(content)
    person = Person("allow_always")
    approvals = Approvals("all", person).kept_in(tmp_path)
    assert approvals.before(command("make"), registry) is None
    assert len(person.requests) == 1
    assert Approvals("all").kept_in(tmp_path).before(command("make"), registry) is None


def test_the_mode_may_change_between_calls(registry: Registry) -> None:
    person = Person()
    approvals = Approvals("never", person)
    approvals.before(command("a"), registry)
    approvals.mode = "all"
    approvals.before(command("a"), registry)
    assert person.asked == [("a",)]


def test_in_plan_mode_nothing_is_changed_and_nobody_is_asked(registry: Registry) -> None:
    person = Person("allow_always")
    rules = Rules.parse(allow=("command(**)", "edit(**)"))
    approvals = Approvals("plan", person, rules)
    for call in (command("ls"), write("a.py"), ToolCall("mcp__hub__delete", {})):
        refused = approvals.before(call, registry)
        assert refused is not None
        assert "plan mode" in refused.text
    assert approvals.before(READ, registry) is None
    assert person.requests == []
