"""The envelope format that codex-style models write: ``*** Begin Patch`` to ``*** End Patch``."""

from __future__ import annotations

from collections.abc import Sequence

from tools.edits.patch.hunks import FilePatch, Hunk, PatchError, PatchLine, refuse_long

BEGIN = "*** Begin Patch"
END = "*** End Patch"
_ADD, _DELETE, _UPDATE = "*** Add File:", "*** Delete File:", "*** Update File:"
_MOVE, _END_OF_FILE = "*** Move to:", "*** End of File"
_HEADERS = (_ADD, _DELETE, _UPDATE)


def is_envelope(text: str) -> bool:
    """Return whether ``text`` has a line of this format."""
    return any(line.startswith((BEGIN, *_HEADERS)) for line in map(str.strip, text.split("\n")))


def parse_envelope(text: str) -> list[FilePatch]:
    """Parse the files of the patch, in order. Raises ``PatchError``."""
    lines = text.split("\n")
    bare = [line.strip() for line in lines]
    if BEGIN not in bare:
        raise PatchError(f"the patch does not begin with {BEGIN!r}")
    first = bare.index(BEGIN)
    if END not in bare[first:]:
        raise PatchError(f"the patch does not end with {END!r}: it may be cut off")
    body = lines[first + 1 : bare.index(END, first)]
    sections: list[tuple[str, list[str]]] = []
    for number, line in enumerate(body, first + 2):
        if line.startswith(_HEADERS):
            sections.append((line.rstrip("\r"), []))
        elif sections:
            sections[-1][1].append(line)
        elif line.strip() and not line.startswith("*** Environment ID:"):
            raise PatchError(
                f"line {number} of the patch is before any '*** Update File: PATH', "
                f"'*** Add File: PATH' or '*** Delete File: PATH': {line.strip()[:80]!r}"
            )
    if not sections:
        raise PatchError("the patch names no file")
    return [_parse_section(header, content) for header, content in sections]


def _parse_section(header: str, body: list[str]) -> FilePatch:
    kind, _, path = header.partition(":")
    path = path.strip()
    if not path:
        raise PatchError(f"{header.strip()[:80]!r} has no path")
    refuse_long(path)
    paths = (path,)
    if kind + ":" == _DELETE:
        if any(line.strip() for line in body):
            raise PatchError(f"there are lines after '{_DELETE} {path}', which takes none")
        return FilePatch("delete", paths)
    if kind + ":" == _ADD:
        return FilePatch("add", paths, (Hunk(1, tuple(_parse_added(path, body))),))
    move: tuple[str, ...] = ()
    if body and body[0].startswith(_MOVE):
        move = (body[0].removeprefix(_MOVE).strip(),)
        refuse_long(move[0])
        body = body[1:]
    hunks = tuple(_parse_hunks(path, body))
    if not hunks and not move:
        raise PatchError(f"the section of {path} has no changes")
    return FilePatch("update", paths, hunks, move)


def _parse_added(path: str, body: list[str]) -> list[PatchLine]:
    while body and not body[-1].strip():
        body = body[:-1]
    for line in body:
        if not line.startswith("+"):
            raise PatchError(
                f"every line of the new file {path} must begin with '+': {line[:80]!r}"
            )
    return [PatchLine("+", line[1:]) for line in body]


def _parse_hunks(path: str, body: Sequence[str]) -> list[Hunk]:
    hunks: list[Hunk] = []
    anchors: list[str] = []
    lines: list[PatchLine] = []
    at_end = False

    def close() -> None:
        nonlocal at_end
        # A blank line before the next header is there for looks.
        while lines and lines[-1] == PatchLine(" ", "") and not at_end:
            lines.pop()
        if lines:
            if all(line.kind == " " for line in lines):
                raise PatchError(f"a hunk of {path} changes nothing: its lines need '-' or '+'")
            hunks.append(Hunk(len(hunks) + 1, tuple(lines), None, tuple(anchors), True, at_end))
            anchors.clear()
        lines.clear()
        at_end = False

    for line in body:
        bare = line.rstrip("\r")
        if bare.startswith("@@"):
            if lines:
                close()
            if anchor := bare[2:].strip().removesuffix("@@").strip():
                anchors.append(anchor)
        elif bare.strip() == _END_OF_FILE:
            at_end = True
            close()
        elif line[:1] in (" ", "-", "+"):
            lines.append(PatchLine(line[0], line[1:]))  # type: ignore[arg-type]
        elif not line.strip():
            lines.append(PatchLine(" ", ""))
        else:
            raise PatchError(
                f"a line in the section of {path} begins with neither ' ', '-', '+' nor '@@': "
                f"{bare[:80]!r}"
            )
    close()
    return hunks
