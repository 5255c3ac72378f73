"""Code of a session's bash: records that ``mapfile`` reads one by one, without a loop of ours.

A command is one record, the nonce of its end mark the next. Bash evals the command once both are
there, with the nonce in no variable, and then prints the mark. So ``break``, ``return`` or ``exit``
find nothing of ours to end, what commands leave switched on (``set -x``, traps) shows nothing of
ours, and no command knows its own end.
"""

from __future__ import annotations

import re

# fd 20 brings the records and is closed for commands; fd 21 is the stream that they write to. The
# numbers are low for the sake of `ulimit -n`. The shell's own outputs lead nowhere, so that a trace
# or trap of the user's that meets our lines is not seen.
# A signal that is trapped while a command runs is handled before the next command of its list
# starts, so after USR1 and the death of what runs nothing more of the list is done.
_SETUP = r"""
exec 20<&0 21>&1 </dev/null >/dev/null 2>&1
__tenuto_functions=$2 __tenuto_trap=$3 __tenuto_token=$4
__tenuto_run= __tenuto_code=0 __tenuto_pid=$BASHPID
builtin eval "$__tenuto_functions"
builtin trap '{ __tenuto_exit; } 22>&1 23>&2 >/dev/null 2>&1' EXIT
builtin trap '\builtin exit 143' USR1
builtin printf '\036%s:%s:\036' "$__tenuto_token" "$BASHPID" >&21
"""
_FUNCTIONS = r"""
__tenuto_state() {
  builtin printf '\036%s:%s\0' "$__tenuto_token" "$PWD" >&21
  builtin declare -px >&21
  builtin printf '\036%s:end\036' "$__tenuto_token" >&21
}
__tenuto_exit() {
  local __tenuto_code=$?
  \unset -f builtin
  builtin trap - USR1
  __tenuto_state
  if [[ ${__tenuto_handler-} ]]; then
    # Not inside the command any more, but at our own level.
    [[ ! /dev/fd/22 -ef /dev/null ]] || builtin eval 'exec 22>&21 23>&21'
    if __tenuto_give "$__tenuto_code"; then
      builtin eval "$__tenuto_handler" >&22 2>&23 22>&- 23>&-
    else
      builtin eval "$__tenuto_handler" >&22 2>&23 22>&- 23>&-
    fi
  fi
  builtin printf '\036%s:x\036' "$__tenuto_token" >&21
}
__tenuto_give() { builtin return "$1"; }
__tenuto_take() {
  case $2 in
    .*) ;;
    s*) __tenuto_state ;;
    t*) __tenuto_state; builtin eval "$__tenuto_trap" ;;
    *)
      __tenuto_run= __tenuto_ok=
      builtin eval '\builtin printf -v __tenuto_ok 1'
      if [[ ! $__tenuto_ok ]]; then
        builtin enable eval printf declare trap
        builtin eval '\builtin printf -v __tenuto_ok 1'
      fi
      # Who hid builtin from us ends the shell instead of waiting for a mark that never comes.
      : "${__tenuto_ok:?}"
      builtin printf '\036%s:%s:\036' "$2" "$__tenuto_code" >&21 || builtin exit "$__tenuto_code"
      return ;;
  esac
  __tenuto_run=${2:1} __tenuto_code=0
}
"""
# Bash counts the lines of a command from where it is called: all on one line, it begins with 1.
_RUN = (
    r'[[ ! $__tenuto_run ]] || { \builtin eval "$__tenuto_run" </dev/null >&21 2>&1 20<&-; '
    r"__tenuto_code=$?; }; \unset -f builtin; \builtin declare -F __tenuto_take || "
    r'\builtin eval "$__tenuto_functions"; __tenuto_take'
)
_MAIN = (
    'builtin eval "$1"; set --; '
    "if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)); then "
    f"builtin mapfile -d '' -c 1 -C '{_RUN}' -u 20 __tenuto_records; else "
    "while IFS= builtin read -r -d '' -u 20 __tenuto_record; do "
    f'{_RUN} 0 "$__tenuto_record"; done; fi; '
    "builtin trap - EXIT"
)

# A user's EXIT trap would take the place of ours, which then runs it; subshells have their own.
_TRAP = r"""trap() {
  {
  local __tenuto_name __tenuto_do __tenuto_others=() __tenuto_ours=
  [[ ${1-} != -- ]] || builtin shift
  if (($# == 0)) || [[ $1 == -[lp]* ]]; then
    builtin trap "$@" 2>&23 | while IFS= builtin read -r __tenuto_name; do
      case $__tenuto_name in
        *"exit 143' SIGUSR1") ;;
        *__tenuto_exit*)
          [[ ! ${__tenuto_handler-} ]] ||
            builtin printf 'trap -- %s EXIT\n' "'${__tenuto_handler//"'"/"'\''"}'" ;;
        *) builtin printf '%s\n' "$__tenuto_name" ;;
      esac
    done
    return 0
  fi
  if [[ $BASHPID != "$__tenuto_pid" ]]; then
    builtin trap -- "$@" 2>&23 23>&-
    return
  fi
  if (($# == 1)); then __tenuto_do=-; else __tenuto_do=$1; builtin shift; fi
  for __tenuto_name; do
    case ${__tenuto_name^^} in
      EXIT | SIGEXIT | 0) __tenuto_ours=1 ;;
      *) __tenuto_others+=("$__tenuto_name") ;;
    esac
  done
  if [[ $__tenuto_ours ]]; then
    __tenuto_handler=$__tenuto_do
    [[ $__tenuto_do != - ]] || __tenuto_handler=
  fi
  ((${#__tenuto_others[@]} == 0)) || builtin trap -- "$__tenuto_do" "${__tenuto_others[@]}" 2>&23
  } 23>&2 2>/dev/null
}
"""
_SETS_EXIT_TRAP = re.compile(
    rb"\btrap\b(?:.*\b(?:SIG)?(?:EXIT|0)\b|[ \t]*(?:-[lp]|[;&|)\n]|\Z))",
    re.DOTALL | re.IGNORECASE,
)
# What can end a shell past its EXIT trap: then its state is that from before the command.
_RISKY = re.compile(rb"\b(?:exec|trap|unset|source|enable|builtin|command)\b|(?:^|[\s;&|(])\.\s")


# With noexec on, a bash runs nothing any more, our own lines included; with too few descriptors it
# loses the streams that it keeps for us.
_ALONE = re.compile(
    rb"\bset\s+(?:-\w+\s+)*-(?:[a-zA-Z]*n\b|o\s+noexec\b)"
    rb"|\bulimit\s+(?:-[HS]+\s+)*-[HS]*n[HS]*\s*\d{1,2}\b"
)


def shell_command(token: str) -> list[str]:
    """Return the command line that starts a shell; it greets with ``token``, the last argument."""
    return ["bash", "--noprofile", "--norc", "-c", _MAIN, "bash", _SETUP, _FUNCTIONS, _TRAP, token]


def command_records(command: bytes, nonce: str) -> bytes:
    r"""Return the records that run ``command`` and then print ``\036NONCE:CODE:\036``.

    A command that may end the shell past our EXIT trap has the shell print its state first. One
    that switches running commands off, or leaves few descriptors, does so in a subshell.
    """
    if _ALONE.search(command):
        command = b"(\n" + command + b"\n)"
    kind = b"t" if _SETS_EXIT_TRAP.search(command) else b"s" if _RISKY.search(command) else b"."
    return kind + command + b"\0" + nonce.encode() + b"\0"
