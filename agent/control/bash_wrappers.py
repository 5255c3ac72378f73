"""Programs that run another program named in their arguments: which one, and how sure that is.

The options of each are listed; one that is not listed makes the wrapped command unknown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

UNKNOWN = "\0"
SHELLS = frozenset({"bash", "sh", "dash", "zsh", "ksh", "ash", "fish"})
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_SHELL_VALUED = frozenset({"-o", "+o", "-O", "+O", "--rcfile", "--init-file"})
_SCRIPT_FLAG = re.compile(r"-[A-Za-z]*c[A-Za-z]*")


@dataclass(frozen=True)
class Wrapped:
    """The things that a command runs in turn: programs with their words, and shell scripts.

    ``plain`` says that the wrapper adds nothing of its own to what it runs; ``unknown`` that it
    runs something that is not written there.
    """

    commands: tuple[tuple[str, ...], ...] = ()
    scripts: tuple[str, ...] = ()
    plain: bool = False
    unknown: bool = False


@dataclass(frozen=True)
class _Form:
    """The form of a wrapper's arguments: options alone, options with a value, operands before."""

    alone: str = ""
    valued: str = ""
    long_alone: frozenset[str] = frozenset()
    long_valued: frozenset[str] = frozenset()
    operands: int = 0
    assignments: bool = False
    plain: bool = True
    more: bool = False


_FORMS = {
    "builtin": _Form(),
    "chrt": _Form("abfior", operands=1),
    "command": _Form("p"),
    "coproc": _Form(),
    "doas": _Form("ns", "uC", plain=False),
    "env": _Form(
        "i0",
        "uC",
        frozenset({"--ignore-environment"}),
        frozenset({"--unset", "--chdir"}),
        assignments=True,
    ),
    "exec": _Form("cl", "a"),
    "ionice": _Form("t", "cn"),
    "nice": _Form("", "n", frozenset(), frozenset({"--adjustment"})),
    "nohup": _Form(),
    "setsid": _Form("cfw", "", frozenset({"--fork", "--wait"})),
    "stdbuf": _Form("", "ioe", frozenset(), frozenset({"--input", "--output", "--error"})),
    "sudo": _Form(
        "AbEeHiKklnPSsVv",
        "CDghpRrTtUu",
        frozenset({"--preserve-env", "--login", "--non-interactive"}),
        frozenset({"--user", "--group"}),
        assignments=True,
        plain=False,
    ),
    "time": _Form("pv", "fo"),
    "timeout": _Form(
        "v",
        "ks",
        frozenset({"--foreground", "--preserve-status", "--verbose"}),
        frozenset({"--kill-after", "--signal"}),
        operands=1,
    ),
    "xargs": _Form(
        "0rtxp",
        "adEILnPs",
        frozenset({"--null", "--no-run-if-empty", "--verbose"}),
        frozenset({"--max-args", "--max-procs", "--max-lines", "--delimiter", "--replace"}),
        more=True,
    ),
}
_FINDS_RUN = frozenset({"-exec", "-execdir", "-ok", "-okdir"})


def unwrap(words: Sequence[str]) -> Wrapped:
    """Return what the command ``words`` runs in turn.

    ``words[0]`` is the program without its folder.
    """
    name, arguments = words[0], list(words[1:])
    if name in SHELLS:
        return _shell(arguments)
    if name == "eval":
        return Wrapped(scripts=(" ".join(arguments),), plain=True)
    if name == "trap":
        operands = [word for word in arguments if not word.startswith("-")]
        return Wrapped(scripts=tuple(operands[:1])) if len(operands) > 1 else Wrapped()
    if name == "find":
        return _find(arguments)
    if name == "su":
        return Wrapped(unknown=True)
    if name == "command" and arguments[:1] and arguments[0] in ("-v", "-V"):
        return Wrapped()
    form = _FORMS.get(name)
    return _through(form, arguments) if form is not None else Wrapped()


def _shell(arguments: list[str]) -> Wrapped:
    skip = False
    for index, word in enumerate(arguments):
        if skip:
            skip = False
            continue
        if UNKNOWN in word:
            return Wrapped(unknown=True)
        skip = word in _SHELL_VALUED
        if _SCRIPT_FLAG.fullmatch(word):
            rest = [word for word in arguments[index + 1 :] if not word.startswith(("-", "+"))]
            return Wrapped(scripts=(rest[0],), plain=True) if rest else Wrapped(unknown=True)
        if not word.startswith(("-", "+")):
            # A script in a file: what the rules say of this command itself decides.
            return Wrapped()
    return Wrapped(unknown=not {"--version", "--help"} & set(arguments))


def _find(arguments: list[str]) -> Wrapped:
    commands = []
    unknown = False
    at = 0
    while at < len(arguments):
        if arguments[at] in _FINDS_RUN:
            rest = arguments[at + 1 :]
            end = next((i for i, word in enumerate(rest) if word in (";", "+")), len(rest))
            commands.append(tuple(UNKNOWN if "{}" in word else word for word in rest[:end]))
            at += end
        unknown |= UNKNOWN in arguments[min(at, len(arguments) - 1)]
        at += 1
    return Wrapped(tuple(commands), unknown=unknown)


def _through(form: _Form, arguments: list[str]) -> Wrapped:
    """Return the command behind a wrapper's own options and operands."""
    rest = list(arguments)
    plain = form.plain
    while rest:
        word = rest[0]
        if UNKNOWN in word:
            return Wrapped(unknown=True)
        if word == "--":
            rest.pop(0)
            break
        if form.assignments and _ASSIGNMENT.match(word):
            plain = False
        elif word.startswith("--"):
            name, has_value, _ = word.partition("=")
            if name in form.long_valued:
                if not has_value:
                    rest.pop(0)
            elif name not in form.long_alone:
                return Wrapped(unknown=True)
        elif word.startswith("-") and len(word) > 1:
            used = _short(form, word)
            if used is None:
                return Wrapped(unknown=True)
            if used:
                rest.pop(0)
        else:
            break
        rest = rest[1:]
    rest = rest[form.operands :]
    if not rest:
        return Wrapped()
    command = tuple(rest)
    if form.more:
        command = (*(UNKNOWN if "{}" in word else word for word in rest), UNKNOWN)
    return Wrapped((command,), plain=plain)


def _short(form: _Form, word: str) -> bool | None:
    """Tell whether a word of short options takes the next word as a value; None if not known."""
    for index, letter in enumerate(word[1:], start=1):
        if letter in form.valued:
            return index == len(word) - 1
        if letter not in form.alone and not letter.isdigit():
            return None
    return False
