"""Shell commands are taken apart as bash would run them, or not at all."""

from __future__ import annotations

import pytest
import tree_sitter_bash
from hypothesis import given
from hypothesis import strategies as st
from tree_sitter import Language, Parser

from agent.control.bash import MAX_CHARACTERS, UNKNOWN, Part, _parses_in_time, take_apart


def flat(parts: tuple[Part, ...] | None) -> list[str]:
    """Every part and what it runs, ``>`` before a written file, ``?`` for what cannot be known."""
    assert parts is not None
    found = []
    for part in parts:
        text = part.text.replace(UNKNOWN, "?")
        found.append(f"> {text}" if part.kind == "write" else text)
        if part.unknown and part.kind == "command":
            found.append("?")
        found += flat(part.inner)
    return found


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("a && b | c; d & e || f", ["a", "b", "c", "d", "e", "f"]),
        ("! a\nb", ["a", "b"]),
        ("(cd x; rm y)", ["cd x", "rm y"]),
        ("if a; then b; elif c; then d; else e; fi", ["a", "b", "c", "d", "e"]),
        ("for i in *; do rm $i; done", ["rm ?"]),
        ("while read l; do echo $l; done < f", ["read l", "echo ?"]),
        ("case x in a) b;; *) c;; esac", ["b", "c"]),
        ("f() { rm x; }; f", ["rm x", "f"]),
        ("[[ -f $(rm x) ]] && (( y++ ))", ["rm x"]),
        ("echo $(rm x) `ls` <(cat y)", ["echo ? ? ?", "rm x", "ls", "cat y"]),
        ('echo "a $(b "$(c)") d"', ["echo a ? d", "b ?", "c"]),
        ("cat <<E\nhi $(rm x)\nE", ["cat", "rm x"]),
        ("cat <<'E'\nhi $(rm x)\nE", ["cat"]),
        ('cat <<< "$(ls)"', ["cat", "ls"]),
        ("X=$(pwd) Y=2 ls", ["X=? Y=2 ls", "pwd"]),
        ("PATH=/evil:$PATH", ["PATH=/evil:?"]),
        ("export A=$(b)", ["export A=?", "b"]),
        ("unset PATH", ["unset PATH"]),
        ("ls > out 2>&1 >> more 2>/dev/null < in", ["ls", "> out", "> more"]),
        ("> made", ["> made"]),
        ('echo x &> "$F"', ["echo x", "> ?"]),
        ("'r'm x \\-r \"f\"g", ["rm x -r fg"]),
        ('echo \'x && y\' "a\\"b\\c" d\\ e', ['echo x && y a"b\\c d e']),
        ("echo a \\\n b", ["echo a b"]),
        ("$X a", ["? a", "?"]),
        ("$(echo rm) a", ["? a", "?", "echo rm"]),
        ("r* a", ["r* a", "?"]),
        ("$'\\x72m' a", ["? a", "?"]),
        ("# nothing", []),
        ("", []),
    ],
)
def test_parts(command: str, parts: list[str]) -> None:
    assert flat(take_apart(command)) == parts


@pytest.mark.parametrize(
    ("command", "inner"),
    [
        ("timeout -k 5 10 nice -n 3 pytest -x", ["nice -n 3 pytest -x", "pytest -x"]),
        ("timeout --signal KILL 5 a", ["a"]),
        ("timeout --new-option 5 a", ["?"]),
        ("nohup nice a b", ["nice a b", "a b"]),
        ("stdbuf -oL -e 0 a", ["a"]),
        ("env -u X A=1 a", ["a"]),
        ("env -S 'rm x'", ["?"]),
        ("sudo -u root -- rm x", ["rm x"]),
        ("sudo -nu root A=1 rm x", ["rm x"]),
        ("su -c 'rm x'", ["?"]),
        ("time -p a", ["a"]),
        ("exec -a name rm x", ["rm x"]),
        ("command -v rm", []),
        ("command rm x", ["rm x"]),
        ("builtin cd x", ["cd x"]),
        ("xargs -0 -n 1 git push", ["git push ?"]),
        ("xargs -I{} sh -c 'rm {}'", ["sh -c ? ?", "?"]),
        ("xargs", []),
        ("bash -c 'a; rm x'", ["a", "rm x"]),
        ("/bin/sh -ec 'rm x' name", ["rm x"]),
        ("bash -o pipefail -c 'rm x'", ["rm x"]),
        ("bash --norc -lc -e 'rm x'", ["rm x"]),
        ('bash -c "$X"', ["?"]),
        ("bash -c 'exec 3<>f'", ["?"]),
        ("bash", ["?"]),
        ("bash -s", ["?"]),
        ("bash $X", ["?"]),
        ("bash x.sh -c y", []),
        ("eval 'a; b' c", ["a", "b c"]),
        ("trap 'rm x' EXIT", ["rm x"]),
        ("trap - EXIT", []),
        ("find . -exec rm {} \\; -execdir a +", ["rm ?", "a"]),
        ("find . -name x", []),
        ("bash -c \"bash -c 'sudo rm x'\"", ["bash -c sudo rm x", "sudo rm x", "rm x"]),
    ],
)
def test_wrapped_commands(command: str, inner: list[str]) -> None:
    assert flat(take_apart(command))[1:] == inner


def test_what_a_variable_in_a_script_would_be_is_not_known() -> None:
    """``bash -c "rm $X"``: the value may hold ``;`` and anything after it."""
    parts = take_apart('bash -c "rm $X"')
    assert parts is not None
    assert parts[0].unknown


@pytest.mark.parametrize(
    "command",
    [
        "exec 3<>f",
        "a &&",
        "echo 'x",
        "if a; then b",
        "$(",
        "a\0b",
        "{rm,-rf,x}",
        "r\\\nm x",
        "x" * (MAX_CHARACTERS + 1),
    ],
)
def test_what_is_no_command_that_we_know_is_not_taken_apart(command: str) -> None:
    assert take_apart(command) is None


def test_a_program_in_a_folder_is_also_read_without_it() -> None:
    (part,) = take_apart("A=1 /bin/rm x") or ()
    assert part.others == ("/bin/rm x", "rm x")


def test_nesting_without_end_neither_raises_nor_takes_long() -> None:
    assert take_apart("(" * 20_000) is None
    deep = "echo $(" * 3000 + ")" * 3000
    assert take_apart(deep) is None or len(take_apart(deep) or ()) == 3000
    script = "rm x"
    for _ in range(12):
        script = "bash -c '" + script.replace("'", "'\\''") + "'"
    parts = take_apart(script[:60_000])
    assert parts is None or all(part.kind == "command" for part in parts)


@given(st.text(alphabet="ab $(){}[]<>|&;'\"\\`\n-=/*~#!\t", max_size=60))
def test_no_text_makes_it_fail(command: str) -> None:
    parts = take_apart(command)
    assert parts is None or all(isinstance(part, Part) for part in parts)


WORD = st.text(alphabet="abc/.-_+:,@%^$*?[]{}'\"\\ ;&|<>()`#!~=\n", min_size=1, max_size=12).filter(
    lambda word: "\\\n" not in word
)


@given(st.lists(WORD, min_size=1, max_size=4))
def test_quoted_words_come_back_as_they_were(words: list[str]) -> None:
    """Whatever is in single quotes is one word, and no part of its own."""
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    parts = take_apart(f"echo {quoted} && b")
    assert parts is not None
    assert [part.text for part in parts] == [" ".join(["echo", *words]), "b"]


@pytest.mark.parametrize("text", [")", "<<E\n"])
def test_a_text_that_the_grammar_takes_quadratic_time_for_is_given_up(text: str) -> None:
    command = text * (MAX_CHARACTERS // len(text))
    parser = Parser(Language(tree_sitter_bash.language()))
    assert not _parses_in_time(parser, command.encode())
    assert take_apart(command) is None
    root = parser.parse(b"ls -l").root_node
    assert not root.has_error and root.named_children[0].type == "command"


def test_a_long_command_is_taken_apart_all_the_same() -> None:
    body = "a line of a file with ) and | in it\n" * 1_000
    parts = take_apart(f"cat > notes.txt <<'END'\n{body}END\npytest -q")
    assert parts is not None
    assert sorted(part.text for part in parts) == ["cat", "notes.txt", "pytest -q"]
