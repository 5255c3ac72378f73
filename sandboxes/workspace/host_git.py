"""Running git on the host so that nothing in a repository can make it run something else.

A repository's configuration, hooks and attributes can name programs. Two things keep them from
being run: settings that outrank the repository's own, and git directories of our own, whose
``info/attributes`` outranks every ``.gitattributes`` and makes git take files as plain bytes.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sandboxes.errors import WorkspaceError

GIT_TIMEOUT_S = 300.0
GIT_BYTES = 4 * 1024**3
SLOW_S = 1.0

_SETTINGS = {
    "advice.detachedHead": "false",
    "commit.gpgSign": "false",
    "core.askPass": "false",
    "core.attributesFile": "/dev/null",
    "core.autocrlf": "false",
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.packedGitLimit": "1g",
    "core.pager": "cat",
    "core.quotePath": "true",
    "core.safecrlf": "false",
    "core.sshCommand": "false",
    "core.untrackedCache": "false",
    "credential.helper": "",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "gpg.program": "false",
    "init.defaultBranch": "main",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    "protocol.ext.allow": "never",
    "protocol.file.allow": "always",
    "submodule.recurse": "false",
    "tag.gpgSign": "false",
    # For a fetch of the commit where a session began, which may be on no branch any more.
    "uploadpack.allowAnySHA1InWant": "true",
}

# Files are bytes: no line-ending, encoding, keyword or filter conversion, no external diff, and
# binary or not is decided by looking at the content.
RAW_ATTRIBUTES = "* -text -ident -filter -working-tree-encoding !eol !diff !merge\n"


class HostGit:
    """Git with a configuration of its own, kept in ``home``."""

    def __init__(self, home: Path) -> None:
        self._home = home
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A file, not only -c: git clears -c when it starts itself in another repository, and only
        # here is safe.directory heard. It may be *, since no repository can make us run anything.
        lines = ["[safe]", "\tdirectory = *"]
        for key, value in _SETTINGS.items():
            section, name = key.rsplit(".", 1)
            head, _, sub = section.partition(".")
            lines += [f'[{head} "{sub}"]' if sub else f"[{head}]", f"\t{name} = {value}"]
        self._config = home / "gitconfig"
        self._config.write_text("\n".join(lines) + "\n")
        self._flags = [f for key, value in _SETTINGS.items() for f in ("-c", f"{key}={value}")]

    def run(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        git_dir: Path | None = None,
        work_tree: Path | None = None,
        stdin: bytes = b"",
        config: Sequence[str] = (),
        timeout_s: float = GIT_TIMEOUT_S,
        memory_bytes: int = GIT_BYTES,
        when_slow: Callable[[], None] | None = None,
    ) -> bytes:
        """Return what git printed. Raises ``WorkspaceError`` with a line of git's if it fails.

        ``memory_bytes`` bounds its address space. ``when_slow`` is called once a second while it
        runs, and may clear away what it waits for.
        """
        command = self.command(arguments, git_dir=git_dir, work_tree=work_tree, config=config)
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=self.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # Ctrl-C in a terminal goes to all of its foreground; it is ours to answer.
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise git_missing() from error
        with process:
            try:
                with suppress(ProcessLookupError, PermissionError):
                    limits = (memory_bytes, memory_bytes)
                    resource.prlimit(process.pid, resource.RLIMIT_AS, limits)
                out, said = _talk(process, stdin, timeout_s, when_slow)
            except subprocess.TimeoutExpired as error:
                raise WorkspaceError(
                    f"git {arguments[0]} in {cwd} did not end within {timeout_s:.0f} s"
                ) from error
            finally:
                process.kill()
        if process.returncode != 0:
            raise failure(arguments[0], said)
        return out

    def version(self) -> tuple[int, int, int]:
        """Return git's version; zeros if it cannot be told."""
        found = re.search(rb"(\d+)\.(\d+)(?:\.(\d+))?", self.run(["version"], cwd=self._home))
        if found is None:
            return (0, 0, 0)
        major, minor, patch = (int(part or 0) for part in found.groups())
        return (major, minor, patch)

    def command(
        self,
        arguments: Sequence[str],
        *,
        git_dir: Path | None = None,
        work_tree: Path | None = None,
        config: Sequence[str] = (),
    ) -> list[str]:
        """Return the full command line."""
        # Where there is no git, that is to be found out by starting it.
        before = _dying_with_us() if shutil.which("git") else ()
        command = [*before, "git", *self._flags]
        for item in config:
            command += ["-c", item]
        if git_dir is not None:
            command.append(f"--git-dir={git_dir}")
        if work_tree is not None:
            command.append(f"--work-tree={work_tree}")
        return [*command, *arguments]

    def environment(self) -> dict[str, str]:
        """Return the whole environment git gets: nothing of the user's but the path."""
        return {
            "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
            "HOME": str(self._home),
            "XDG_CONFIG_HOME": str(self._home),
            "LC_ALL": "C",
            "GIT_CONFIG_GLOBAL": str(self._config),
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_ALLOW_PROTOCOL": "file",
            "GIT_ASKPASS": "false",
            "GIT_EDITOR": "false",
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            # Without this a mere listing may rewrite the user's index.
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_SSH_COMMAND": "false",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_AUTHOR_NAME": "Tenuto",
            "GIT_AUTHOR_EMAIL": "tenuto@localhost",
            "GIT_COMMITTER_NAME": "Tenuto",
            "GIT_COMMITTER_EMAIL": "tenuto@localhost",
        }

    @contextmanager
    def blobs(self, git_dir: Path) -> Iterator[Callable[[str], bytes]]:
        """Yield a function that reads a blob of ``git_dir``, over one process for all.

        The function raises ``WorkspaceError`` for what is not there.
        """
        process = subprocess.Popen(
            self.command(["cat-file", "--batch"], git_dir=git_dir),
            cwd=git_dir,
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        asked, given = process.stdin, process.stdout
        assert asked is not None and given is not None

        def read(blob: str) -> bytes:
            try:
                asked.write(blob.encode() + b"\n")
                asked.flush()
                head = given.readline().split()
                if len(head) != 3:
                    raise WorkspaceError(f"the object {blob} is not in the record")
                content = given.read(int(head[2]))
                given.read(1)
            except BrokenPipeError:
                raise WorkspaceError("git cat-file ended early; is the record damaged?") from None
            return content

        try:
            yield read
        finally:
            process.kill()
            for pipe in (asked, given):
                with suppress(OSError):
                    pipe.close()
            process.wait()

    def excludes_file(self, rules: str) -> Path:
        """Write a file of ignore rules, to be named as ``core.excludesFile``. Returns its path."""
        path = self._home / "excludes"
        path.write_text(rules, errors="surrogateescape")
        return path

    def new_store(self, git_dir: Path, *, binary: bool = False) -> Path:
        """Make a bare git directory that takes files as bytes, and never as text if ``binary``."""
        self.run(["init", "--quiet", "--bare", str(git_dir)], cwd=git_dir.parent)
        info = git_dir / "info"
        info.mkdir(exist_ok=True)
        (info / "attributes").write_text(RAW_ATTRIBUTES + ("* -diff\n" if binary else ""))
        return git_dir


@functools.cache
def _dying_with_us() -> tuple[str, ...]:
    """Return what to put before a command that the kernel is to kill when we end."""
    program = shutil.which("setpriv")
    if program is None:
        return ()
    done = subprocess.run([program, "--help"], capture_output=True, check=False)
    return (program, "--pdeathsig=KILL") if b"--pdeathsig" in done.stdout else ()


def _talk(
    process: subprocess.Popen[bytes],
    stdin: bytes,
    timeout_s: float,
    when_slow: Callable[[], None] | None,
) -> tuple[bytes, bytes]:
    """Return what the process printed. Raises ``subprocess.TimeoutExpired``."""
    deadline = time.monotonic() + timeout_s
    given: bytes | None = stdin
    while True:
        left = deadline - time.monotonic()
        turn = left if when_slow is None else min(left, SLOW_S)
        try:
            return process.communicate(given, timeout=max(0.0, turn))
        except subprocess.TimeoutExpired:
            if when_slow is None or time.monotonic() >= deadline:
                raise
            given = None
            when_slow()


def names_git(path: str) -> bool:
    """Tell whether git, on any system, takes a part of ``path`` for its own folder.

    Git's commands refuse such paths, but an index that somebody made by hand can hold them.
    """
    parts = path.replace("\\", "/").lower().split("/")
    return any(part.split(":")[0].rstrip(" .") in (".git", "git~1") for part in parts)


def failure(what: str, stderr: bytes) -> WorkspaceError:
    """Make an error of the one line that matters of what git said."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith(("hint:", "warning:"))]
    text = lines[0] if lines else "no message"
    if "No space left on device" in stderr.decode("utf-8", "replace"):
        return no_space()
    return WorkspaceError(f"git {what} failed: {text[:300]}")


def no_space() -> WorkspaceError:
    """Make the error for a full disk."""
    return WorkspaceError(
        "no disk space left for the private copy of the repository; free some, "
        "or set XDG_STATE_HOME to a place with more"
    )


def git_missing() -> WorkspaceError:
    """Make the error for a machine without git."""
    return WorkspaceError("git is not installed; install it (Debian: apt-get install git)")


def from_os_error(error: OSError, doing: str) -> WorkspaceError:
    """Make a one-line error of a system error while handling the repository."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return no_space()
    where = f" ({error.filename})" if error.filename else ""
    what = f"{doing} failed: {error.strerror or error}{where}"
    if error.errno == errno.EROFS:
        what += "; make it writable, or set XDG_STATE_HOME to a place that is"
    return WorkspaceError(what)
