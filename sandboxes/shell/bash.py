"""What a session's bash runs: it takes commands from one descriptor and marks where each ends."""

from __future__ import annotations

# fd 60 brings the commands and is closed for them; fd 61 is the stream that they write to.
# A signal that is trapped while a command runs is handled before the next command of its list
# starts, so after USR1 and the death of what runs nothing more of the list is done.
_SETUP = r"""
exec 60<&0 61>&1 2>&1 </dev/null
__tenuto_nonce=$2
__tenuto_end() {
  local code=$?
  trap - EXIT USR1
  {
    builtin printf '\036%s:%s:x\036%s\0' "$__tenuto_nonce" "$code" "$PWD"
    builtin declare -px
    builtin printf '\036%s:end\036' "$__tenuto_nonce"
  } >&61 2>/dev/null
}
trap __tenuto_end EXIT
trap 'exit 143' USR1
builtin printf '\036%s:%s:\036' "$2" "$BASHPID"
"""
# All on one line, so that bash counts the lines of a command from 1 in its messages.
_LOOP = (
    'builtin eval "$1"; set --; '
    "while IFS= builtin read -r -d '' -u 60 __tenuto_nonce && "
    "IFS= builtin read -r -d '' -u 60 __tenuto_command; do "
    'builtin eval "$__tenuto_command" </dev/null 1>&61 2>&1 60<&-; '
    'builtin printf \'\\036%s:%s:\\036\' "$__tenuto_nonce" "$?" >&61; done; trap - EXIT'
)


def shell_command(nonce: str) -> list[str]:
    """The command line that starts a shell; it greets with ``nonce``, the last argument."""
    return ["bash", "--noprofile", "--norc", "-c", _LOOP, "bash", _SETUP, nonce]
