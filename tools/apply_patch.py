"""apply_patch: apply one patch to any number of files, all of it or nothing."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace

from pydantic import Field

from sandboxes.errors import SandboxError
from tools.edit import MAX_BYTES
from tools.edits.patch.envelope import is_envelope, parse_envelope
from tools.edits.patch.fit import Fitted, fit
from tools.edits.patch.hunks import FilePatch, Hunk, PatchError, PatchLine
from tools.edits.patch.unified import is_unified, parse_unified
from tools.edits.saving import describe_new_problems, encode_text
from tools.errors import ToolFailure
from tools.files.places import Place, locate, locate_file, read, refuse_git, write
from tools.schema import Parameters
from tools.text.text_file import TextFile, count_lines, decode
from tools.types import Observation, ToolContext, ToolSpec

_FENCE = re.compile(r"\A\s*```[^\n]*\n(.*?)\n?```\s*\Z", re.DOTALL)
_PLAIN = TextFile("", "utf-8", b"")


class ApplyPatchParameters(Parameters):
    """The parameters of apply_patch."""

    patch: str = Field(
        description="The whole patch: *** Begin Patch ... *** End Patch, or a unified diff."
    )


@dataclass
class _File:
    """A file before (``disk``, None if absent) and after the patch (``text``, None if deleted)."""

    place: Place
    disk: bytes | None
    form: TextFile
    before: str
    text: str | None
    executable: bool | None = None

    @property
    def data(self) -> bytes | None:
        return None if self.text is None else encode_text(self.place.shown, self.form, self.text)


def run(context: ToolContext, parameters: ApplyPatchParameters) -> Observation:
    """Work out every file first, then write them; if a write fails, put the others back."""
    try:
        patches = _parse_patch(parameters.patch)
    except PatchError as error:
        raise ToolFailure(f"Nothing was changed: {error}.") from None
    work = _Work(context)
    lines = []
    for patch in patches:
        try:
            lines.append(work.take(patch))
        except PatchError as error:
            text = str(error)
            if not text.startswith("Nothing was changed"):
                text = f"Nothing was changed: {text}."
            raise ToolFailure(text + _say_none_applied(len(patches))) from None
    work.write()
    notes = "".join(
        describe_new_problems(context, file.place, file.before, file.text)
        for file in work.files.values()
        if file.text is not None
    )
    return Observation("\n".join(lines) + notes)


def _say_none_applied(count: int) -> str:
    return f"\nNone of the {count} files of the patch was changed." if count > 1 else ""


def _parse_patch(text: str) -> list[FilePatch]:
    if fenced := _FENCE.match(text):
        text = fenced[1]
    if is_envelope(text):
        return parse_envelope(text)
    if is_unified(text):
        return parse_unified(text)
    raise PatchError(
        "this is no patch that can be read. Write '*** Begin Patch', then '*** Update File: PATH' "
        "with lines that begin with ' ', '-' or '+' under '@@' lines, then '*** End Patch'; or a "
        "unified diff with '--- a/PATH', '+++ b/PATH' and '@@ -A,B +C,D @@'"
    )


class _Work:
    """The files that one patch changes; nothing is written before ``write``."""

    def __init__(self, context: ToolContext) -> None:
        self._context = context
        self.files: dict[str, _File] = {}

    def take(self, patch: FilePatch) -> str:
        """Work out one part of the patch. Returns the line that says what it does."""
        if patch.action == "add":
            return self._add(patch)
        file = self._open_existing(patch)
        shown = file.place.shown
        before = file.text or ""
        hunks = _strip_mark(patch.hunks, before) if file.form.bom else patch.hunks
        fitted = fit(shown, before, hunks) if hunks else Fitted(before, 0, 0, ())
        if patch.action == "delete":
            if patch.hunks and fitted.text:
                raise PatchError(
                    f"{shown} has other lines than those the patch deletes: give all of them, or "
                    f"use '*** Delete File: {shown}'"
                )
            file.text = None
            return f"Deleted {shown}."
        if fitted.text == before and patch.hunks:
            raise PatchError(f"the patch leaves {shown} as it is: its '-' and '+' lines are equal")
        file.text = fitted.text
        if patch.executable is not None:
            file.executable = patch.executable
        said = f"Edited {shown}"
        if patch.move_to:
            said = f"Moved {shown} to {self._move(file, patch.move_to[0])}"
        counts = f": +{fitted.added} -{fitted.removed} lines" if patch.hunks else ""
        notes = f" ({'; '.join(fitted.notes)})" if fitted.notes else ""
        return f"{said}{counts}{notes}."

    def write(self) -> None:
        """Write every file, or none: what was written is put back if another cannot be."""
        pending = [(file, file.data) for file in self.files.values()]
        written: list[_File] = []
        try:
            for file, data in sorted(pending, key=lambda item: item[1] is None):
                written.append(file)
                self._put(file.place, data, file.executable)
        except (ToolFailure, SandboxError) as error:
            for file in written:
                with suppress(ToolFailure, SandboxError, OSError):
                    self._put(file.place, file.disk, None)
            raise ToolFailure(f"{error} No file was changed.") from None

    def _put(self, place: Place, data: bytes | None, executable: bool | None) -> None:
        seen = self._context.seen
        if data is not None:
            write(self._context.sandbox, place, data, executable=executable)
            seen.note(place.real, data)
            return
        try:
            self._context.sandbox.remove(place.real)
        except FileNotFoundError:
            pass
        except OSError as error:
            reason = error.strerror or str(error)
            raise ToolFailure(f"{place.shown} cannot be removed: {reason}.") from None
        seen.forget(place.real)

    def _add(self, patch: FilePatch) -> str:
        place = self._locate_new(patch.path)
        lines = [line.text for hunk in patch.hunks for line in hunk.lines if line.kind == "+"]
        if any(line.kind != "+" for hunk in patch.hunks for line in hunk.lines):
            raise PatchError(f"{place.shown} is new, so all its lines must begin with '+'")
        bare = bool(patch.hunks) and patch.hunks[-1].ends_bare
        text = "\n".join(lines) + ("\n" if lines and not bare else "")
        known = self.files.get(place.real)
        file = _File(place, known.disk if known else None, _PLAIN, "", text, patch.executable)
        self.files[place.real] = file
        count = count_lines(text)
        return f"Created {place.shown} ({count} {'line' if count == 1 else 'lines'})."

    def _open_existing(self, patch: FilePatch) -> _File:
        """Return the file as earlier parts of the patch leave it, read from disk the first time."""
        place = locate(self._context.sandbox, self._choose_reading(patch.paths))
        known = self.files.get(place.real)
        if known is not None:
            if known.text is None:
                raise PatchError(f"{place.shown} is deleted or moved earlier in the patch")
            return known
        refuse_git(place)
        place, status = locate_file(self._context.sandbox, place.shown)
        if place.shown != place.real and (patch.action == "delete" or patch.move_to):
            raise PatchError(
                f"{place.shown} leads through a link to {place.real}: use that path, or remove or "
                "move the link with run_shell_command"
            )
        if status.st_size > MAX_BYTES:
            raise PatchError(f"{place.shown} is too large to patch: use run_shell_command")
        data = read(self._context.sandbox, place)
        self._context.seen.refuse_if_changed(place.shown, place.real, data)
        form = decode(data)
        if form is None and (patch.hunks or patch.move_to or patch.action == "update"):
            raise PatchError(f"{place.shown} is a binary file, which a patch cannot change")
        form = form or _PLAIN
        file = _File(place, data, form, form.text, form.text)
        self.files[place.real] = file
        return file

    def _move(self, file: _File, path: str) -> str:
        target = self._locate_new(path)
        known = self.files.get(target.real)
        self.files[target.real] = _File(
            target,
            known.disk if known else None,
            file.form,
            file.before,
            file.text,
            file.executable if file.executable is not None else _is_executable(file.place),
        )
        file.text = None
        return target.shown

    def _locate_new(self, path: str) -> Place:
        """Return the place of a new file. Raises ``PatchError`` if a file is there."""
        place = locate(self._context.sandbox, self._choose_reading((path,)))
        refuse_git(place)
        known = self.files.get(place.real)
        there = known.text is not None if known is not None else place.host.exists()
        if there:
            raise PatchError(
                f"{place.shown} is there already: change it with '*** Update File: {place.shown}', "
                "or replace it with write_file"
            )
        return place

    def _choose_reading(self, paths: tuple[str, ...]) -> str:
        """Return the first of ``paths`` that exists, or the first of all."""
        for path in paths:
            with suppress(ToolFailure):
                place = locate(self._context.sandbox, path)
                if place.real in self.files or place.host.exists():
                    return path
        return paths[0]


def _strip_mark(hunks: tuple[Hunk, ...], text: str) -> tuple[Hunk, ...]:
    """Return the hunks without byte-order marks, which are no part of the file's text."""
    bare = []
    for hunk in hunks:
        lines = [PatchLine(line.kind, line.text.removeprefix("\ufeff")) for line in hunk.lines]
        if not text:  # a file with nothing but the mark has a line for git, but none here
            lines = [line for line in lines if line.kind == "+" or line.text]
        bare.append(replace(hunk, lines=tuple(lines)))
    return tuple(bare)


def _is_executable(place: Place) -> bool:
    """Return whether the owner may execute the file."""
    try:
        return bool(place.host.stat().st_mode & 0o100)
    except OSError:
        return False


TOOL = ToolSpec(
    name="apply_patch",
    description=(
        "Change several places or several files at once; all of it is applied or nothing. Write\n"
        "*** Begin Patch\n"
        "*** Update File: path\n"
        "@@ def function_that_it_is_in\n"
        " a line that stays\n"
        "-a line that goes\n"
        "+a line that comes\n"
        "*** Add File: path\n"
        "+every line of it\n"
        "*** Delete File: path\n"
        "*** End Patch\n"
        "or a unified diff, whose line numbers need not be right. The lines that stay or go must "
        "be exactly those of the file; give enough of them to be the only match."
    ),
    parameters=ApplyPatchParameters,
    run=run,
    kind="edit",
)
