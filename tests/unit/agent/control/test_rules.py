"""Rules: patterns that fit, the most severe one first, and what cannot be known."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.control.bash import UNKNOWN, take_apart
from agent.control.rules import Rule, Rules, fits, may_fit, path_fits
from agent.errors import ConfigError


def ruling(rules: Rules, command: str) -> list[str]:
    """What is said of each part."""
    parts = take_apart(command)
    assert parts is not None
    return [rules.of_part(part).ruling for part in parts]


RULES = Rules.parse(
    allow=["git status", "pytest *", "ls *", "make", "bash run.sh"],
    ask=["git *", "curl*"],
    deny=["rm -rf *", "git push *", "edit(.github/**)"],
)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("pytest", ["allow"]),
        ("pytest -x a", ["allow"]),
        ("pytests", ["open"]),
        ("make all", ["open"]),
        ("git status", ["ask"]),
        ("git push", ["deny"]),
        ("git push -f && ls", ["deny", "allow"]),
        ("git pushx", ["ask"]),
        ("rm -rf x", ["deny"]),
        ("rm x", ["open"]),
        ("cd a && pwd; true", ["allow"] * 3),
        ("sudo git push", ["deny"]),
        ("/usr/bin/git push", ["deny"]),
        ("A=1 git push", ["deny"]),
        ("xargs git push", ["deny"]),
        ("bash -c 'ls; git push'", ["deny"]),
        ("$(echo git) push", ["ask", "open"]),
        ("git $X", ["ask"]),
        ("rm $X", ["ask"]),
        ("rm -rf $X", ["deny"]),
        ("rm x $X", ["open"]),
        ("echo x | bash", ["open", "ask"]),
        ('bash -c "$X"', ["ask"]),
        ("timeout 5 pytest -x", ["allow"]),
        ("timeout 5 nice pytest -x", ["allow"]),
        ("bash -c 'ls && pytest'", ["allow"]),
        ("bash -c 'ls && other'", ["open"]),
        ("sudo pytest", ["open"]),
        ("PATH=/evil pytest", ["open"]),
        ("./pytest", ["open"]),
        ("PATH=/evil; ls", ["open", "allow"]),
        ("bash run.sh", ["allow"]),
        ("ls > .github/workflows/x", ["allow", "deny"]),
        ("ls > ./a/../.github/x", ["allow", "deny"]),
        ("ls > other", ["allow", "open"]),
        ("ls > $X", ["allow", "ask"]),
        ("ls $X", ["allow"]),
    ],
)
def test_the_most_severe_rule_decides(command: str, said: list[str]) -> None:
    assert ruling(RULES, command) == said


def test_without_rules_that_forbid_what_is_unknown_is_the_modes_turn() -> None:
    assert ruling(Rules.parse(allow=["ls"]), "$X; bash; ls > $Y") == ["open"] * 2 + [
        "allow",
        "open",
    ]


@pytest.mark.parametrize(
    ("pattern", "path", "fit"),
    [
        (".env", ".env", True),
        (".env", "a/b/.env", True),
        (".env", "a.env", False),
        ("/.env", "a/.env", False),
        ("src", "src/a/b.py", True),
        ("src/", "src/a/b.py", True),
        ("src/*.py", "src/a.py", True),
        ("src/*.py", "src/a/b.py", False),
        ("src/**", "src/a/b.py", True),
        ("src/**/b.py", "src/b.py", True),
        ("src/**/b.py", "src/x/y/b.py", True),
        ("*.lock", "a/b.lock", True),
        ("**", "anything/at.all", True),
        ("a?c", "abc", True),
        ("a/b", "x/a/b", False),
    ],
)
def test_paths(pattern: str, path: str, fit: bool) -> None:
    assert path_fits(pattern, path) is fit


def test_names() -> None:
    rules = Rules.parse(deny=["mcp(git*.delete_*)"], ask=["tool(write_file)"])
    assert rules.of_name("mcp", "github.delete_repo").ruling == "deny"
    assert rules.of_name("mcp", "github.list").ruling == "open"
    assert rules.of_name("tool", "write_file").ruling == "ask"
    assert str(rules.deny[0]) == "mcp(git*.delete_*)"


@pytest.mark.parametrize(
    "written", ["", "edit()", "edit(", "read(.env", "write(x)", "x" * 2000, "a\0b"]
)
def test_a_rule_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(ConfigError):
        Rule.parse(written)


PATTERN = st.text(alphabet="ab *?", max_size=8)
TEXT = st.text(alphabet="ab ", max_size=8)


@given(PATTERN, TEXT)
def test_globs_are_those_of_regular_expressions(pattern: str, text: str) -> None:
    def matches(pattern: str) -> bool:
        expression = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern)
        return re.fullmatch(expression, text, re.DOTALL) is not None

    expected = matches(pattern) or (pattern.endswith(" *") and matches(pattern[:-2]))
    assert fits(pattern, text) is expected
    assert may_fit(pattern, text) is expected


@given(PATTERN, st.lists(st.text(alphabet="ab ", max_size=3), min_size=2, max_size=3))
def test_what_may_fit_covers_all_that_the_unknown_could_be(pattern: str, known: list[str]) -> None:
    text = UNKNOWN.join(known)
    values = ["", "a", "b", " ", "ab", "b a", "aab"]
    filled = []
    for chosen in itertools.product(values, repeat=len(known) - 1):
        filled.append("".join(itertools.chain(*zip(known, [*chosen, ""], strict=True))))
    if any(fits(pattern, one) for one in filled):
        assert may_fit(pattern, text)
    if fits(pattern, text):
        assert all(fits(pattern, one) for one in filled)


def test_hostile_patterns_take_no_time() -> None:
    """Each star could begin anywhere: a backtracking matcher would not come back."""
    pattern, text = "*a" * 400 + "b", "a" * 5000
    assert not fits(pattern, text)
    assert not path_fits("**/a/" * 150 + "b", "a/" * 1000 + "c")
