"""Parse unified diffs by git or by a model, whose line numbers and counts are rough."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tools.edits.patch.hunks import FilePatch, Hunk, PatchError, PatchLine, refuse_long

_HUNK = re.compile(r"@@+ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@+ ?(.*)", re.ASCII)
_BARE_HUNK = re.compile(r"@@( .*)?$")
_NO_NEWLINE = re.compile(r"\\ ")
_NOWHERE = "/dev/null"
_UNESCAPED = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "a": "\a", "b": "\b"}
_ESCAPE = re.compile(r"\\([0-7]{3}|.)")


def is_unified(text: str) -> bool:
    """Return whether ``text`` looks like a unified diff."""
    return bool(re.search(r"^(?:diff --git |--- \S[^\n]*\n\+\+\+ \S)", text, re.MULTILINE))


def parse_unified(text: str) -> list[FilePatch]:
    """Parse the files of the diff, in order. Raises ``PatchError``."""
    reader = _Reader(text.split("\n"))
    files: list[FilePatch] = []
    while (file := reader.next_file()) is not None:
        files.append(file)
    if not files:
        raise PatchError("the patch names no file")
    return files


@dataclass
class _Header:
    """The facts in the lines before a file's first hunk."""

    names: list[str] = field(default_factory=list)
    old: str | None = None
    new: str | None = None
    rename_from: str | None = None
    rename_to: str | None = None
    executable: bool | None = None
    added: bool = False
    deleted: bool = False


class _Reader:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 0

    def next_file(self) -> FilePatch | None:
        header = self._read_header()
        if header is None:
            return None
        hunks: list[Hunk] = []
        while (hunk := self._read_hunk(len(hunks) + 1)) is not None:
            hunks.append(hunk)
        return _make_file(header, tuple(hunks))

    def _peek(self, ahead: int = 0) -> str | None:
        at = self._at + ahead
        return self._lines[at].rstrip("\r") if at < len(self._lines) else None

    def _begins_file(self) -> bool:
        line, following = self._peek(), self._peek(1)
        if line is None:
            return False
        if line.startswith("diff --git "):
            return True
        return line.startswith("--- ") and (following or "").startswith("+++ ")

    def _read_header(self) -> _Header | None:
        while self._peek() is not None and not self._begins_file():
            line = self._peek() or ""
            if _HUNK.match(line):
                raise PatchError("a hunk comes before any '--- PATH' and '+++ PATH'")
            self._at += 1
        if self._peek() is None:
            return None
        header = _Header()
        line = self._peek() or ""
        if line.startswith("diff --git "):
            header.names = _split_two_names(line.removeprefix("diff --git "))
            self._at += 1
            while (line := self._peek() or "") and not self._begins_file():
                if not self._read_extended(header, line):
                    break
                self._at += 1
        if (self._peek() or "").startswith("--- ") and (self._peek(1) or "").startswith("+++ "):
            header.old = _read_name((self._peek() or "")[4:])
            header.new = _read_name((self._peek(1) or "")[4:])
            self._at += 2
        return header

    @staticmethod
    def _read_extended(header: _Header, line: str) -> bool:
        """Read one of git's own header lines; False if it is none."""
        if line.startswith(("GIT binary patch", "Binary files ")):
            raise PatchError("binary files cannot be patched: write them with run_shell_command")
        if line.startswith(("copy from ", "copy to ")):
            raise PatchError("copies are not supported: add the copy as a new file")
        if line.startswith(("new file mode ", "new mode ")):
            mode = line.rpartition(" ")[2]
            if mode not in ("100644", "100755"):
                raise PatchError(
                    f"mode {mode} is neither a plain nor an executable file: make links with "
                    "run_shell_command"
                )
            header.executable = mode == "100755"
            header.added = header.added or line.startswith("new file")
        elif line.startswith("deleted file mode "):
            header.deleted = True
        elif line.startswith("rename from "):
            header.rename_from = _unquote(line.removeprefix("rename from "))
        elif line.startswith("rename to "):
            header.rename_to = _unquote(line.removeprefix("rename to "))
        elif not line.startswith(("index ", "old mode ", "similarity ", "dissimilarity ")):
            return False
        return True

    def _read_hunk(self, number: int) -> Hunk | None:
        while (line := self._peek()) is not None and not line.strip():
            self._at += 1
        if line is None or self._begins_file() or line.strip() == "--":
            return None
        match = _HUNK.match(line)
        if match is None and not _BARE_HUNK.match(line):
            if line.startswith((" ", "-", "+")):
                raise PatchError(
                    f"a line stands before any hunk header '@@ -A,B +C,D @@': {line[:80]!r}"
                )
            return None
        self._at += 1
        if match is None:
            heading = line[2:].strip().removesuffix("@@").strip()
            lines, bare = self._take_until_next()
            start = None
        else:
            heading = match[5].strip()
            old, new = int(match[2] or 1), int(match[4] or 1)
            counted = self._take_counted(old, new)
            lines, bare = counted if counted is not None else self._take_until_next()
            start = int(match[1])
            if not old:
                start += 1  # such a header names the line before
        if not any(line.kind != " " for line in lines):
            raise PatchError(f"hunk {number} changes nothing: its lines need '-' or '+'")
        return Hunk(
            number,
            tuple(lines),
            start,
            (heading,) if heading else (),
            ended_bare="-" in bare,
            ends_bare="+" in bare,
        )

    def _take_counted(self, old: int, new: int) -> tuple[list[PatchLine], set[str]] | None:
        """Take the lines that the header counts; None if the counts do not fit what follows."""
        at = self._at
        lines: list[PatchLine] = []
        bare: set[str] = set()
        while old > 0 or new > 0:
            if at >= len(self._lines):
                return None
            text = self._lines[at]
            kind = text[:1]
            if kind == "\\" and lines:
                bare |= _list_sides(lines[-1])
            elif kind in ("", "\r"):
                lines.append(PatchLine(" ", text))
                old, new = old - 1, new - 1
            elif kind in (" ", "-", "+"):
                lines.append(PatchLine(kind, text[1:]))  # type: ignore[arg-type]
                old -= kind != "+"
                new -= kind != "-"
            else:
                return None
            at += 1
        if old or new:
            return None
        while at < len(self._lines) and _NO_NEWLINE.match(self._lines[at]):
            bare |= _list_sides(lines[-1])
            at += 1
        following = self._lines[at].rstrip("\r") if at < len(self._lines) else ""
        goes_on = following[:1] in (" ", "+") or (following[:1] == "-" and not self._file_at(at))
        if goes_on and following.strip() != "--":  # such a line begins a mail's signature
            return None
        self._at = at
        return lines, bare

    def _file_at(self, at: int) -> bool:
        following = self._lines[at + 1] if at + 1 < len(self._lines) else ""
        return self._lines[at].startswith("--- ") and following.startswith("+++ ")

    def _take_until_next(self) -> tuple[list[PatchLine], set[str]]:
        """Take the lines up to the next hunk or file, where the counts are wrong or missing."""
        lines: list[PatchLine] = []
        bare: set[str] = set()
        while (line := self._peek()) is not None and not self._begins_file():
            text = self._lines[self._at]
            if _HUNK.match(line) or _BARE_HUNK.match(line):
                break
            if text.startswith("\\"):
                bare |= _list_sides(lines[-1]) if lines else set()
            elif text[:1] in (" ", "-", "+"):
                lines.append(PatchLine(text[0], text[1:]))  # type: ignore[arg-type]
            elif not line:
                lines.append(PatchLine(" ", text))
            else:
                break
            self._at += 1
        while lines and lines[-1].kind == " " and not lines[-1].text.strip():
            lines.pop()  # blank lines after the hunk are there for looks
        return lines, bare


def _list_sides(line: PatchLine) -> set[str]:
    return {"-", "+"} if line.kind == " " else {line.kind}


def _make_file(header: _Header, hunks: tuple[Hunk, ...]) -> FilePatch:
    old, new = header.old, header.new
    if header.rename_from and header.rename_to:
        refuse_long(header.rename_from)
        refuse_long(header.rename_to)
        return FilePatch(
            "update", (header.rename_from,), hunks, (header.rename_to,), header.executable
        )
    if header.added or old == _NOWHERE:
        name = new or (header.names[1] if len(header.names) > 1 else "")
        return FilePatch("add", _list_readings(name), hunks, executable=header.executable)
    if header.deleted or new == _NOWHERE:
        name = old if old not in (None, _NOWHERE) else (header.names or [""])[0]
        return FilePatch("delete", _list_readings(name or ""), hunks)
    name = new or (header.names[1] if len(header.names) > 1 else "")
    if not hunks and header.executable is None:
        raise PatchError(f"the section of {name or 'a file'} has no hunks")
    return FilePatch("update", _list_readings(name), hunks, executable=header.executable)


def _list_readings(name: str) -> tuple[str, ...]:
    """Return the name without git's ``a/`` or ``b/``, then with it."""
    if not name:
        raise PatchError("a section of the patch has no path")
    refuse_long(name)
    if name[:2] in ("a/", "b/", "i/", "w/", "c/", "o/") and len(name) > 2:
        return name[2:], name
    return (name,)


def _read_name(text: str) -> str:
    """Return the path in a ``---`` or ``+++`` line, without the time after it."""
    if text.startswith('"'):
        return _unquote(text)
    return text.split("\t")[0].rstrip()


def _split_two_names(text: str) -> list[str]:
    """Split the two paths of a ``diff --git`` line, as far as they can be told apart."""
    if text.startswith('"'):
        end = re.match(r'"(?:[^"\\]|\\.)*"', text)
        if end:
            return [_unquote(end[0]), _unquote(text[end.end() :].strip())]
    half = len(text) // 2
    if text[half : half + 1] == " " and text[1:half] == text[half + 2 :]:
        return [text[:half], text[half + 1 :]]
    first, _, second = text.partition(" b/")
    return [first, f"b/{second}"] if second else text.split(" ", 1)


def _unquote(text: str) -> str:
    """Read a path as git writes it, perhaps in quotes with escapes."""
    text = text.strip()
    if not (len(text) > 1 and text[0] == text[-1] == '"'):
        return text

    def plain(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code, 8) & 255) if code.isdigit() else _UNESCAPED.get(code, code)

    inner = _ESCAPE.sub(plain, text[1:-1])
    # Octal escapes are bytes, other characters stand for themselves.
    data = b"".join(
        char.encode("latin-1") if ord(char) < 256 else char.encode("utf-8") for char in inner
    )
    return data.decode("utf-8", "surrogateescape")
