"""Ten thousand generated edits and patches: is what is written ever wrong?

    python -m benchmarks.edits [--cases N] [--seed N] [--add]

Each case makes files in odd forms (CRLF, mixed endings, no last line feed, marks, Latin-1,
UTF-16, repeated lines), a change of them, and other changes elsewhere that happened meanwhile. The
tools get the first on top of the second and must write exactly what plain list operations give, or
refuse and change nothing. Patches made by `git diff` are also given to `git apply`. Writes
benchmarks/results/edits.json; exits with 1 if any content was wrong or any call raised.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.support.recording import machine, read, record
from sandboxes.open import open_sandbox
from sandboxes.workspace.workspace import Workspace
from tools.registry import Registry
from tools.types import Observation, ToolContext

WORDS = (
    "alpha",
    "beta",
    "gamma",
    "é",
    "naïve",
    "x = 1",
    "return",
    "}",
    "{",
    "",
    "  ",
    "\tpass",
    "--",
    "++ a",
)
CONTEXT = 3
GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "PATH": "/usr/bin:/bin"}


@dataclass
class Report:
    """The results of the cases; ``wrong`` has a description of each that went wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@dataclass
class Form:
    """The written form of a text."""

    encoding: str = "utf-8"
    bom: bytes = b""
    newline: str = "\n"
    final: bool = True

    def data(self, lines: list[str], endings: list[str] | None = None) -> bytes:
        """Return the bytes of ``lines``."""
        text = ""
        for number, line in enumerate(lines):
            ending = endings[number] if endings else self.newline
            text += line + (ending if self.final or number < len(lines) - 1 else "")
        return self.bom + text.encode(self.encoding)


@dataclass
class EditChange:
    """Lines ``first`` to ``last`` (not included) of the base give way to ``lines``."""

    first: int
    last: int
    lines: list[str]


def changed(base: list[str], changes: list[EditChange]) -> list[str]:
    """Return the base with all changes made: the plain model that every answer is held against."""
    result = list(base)
    for change in sorted(changes, key=lambda item: item.first, reverse=True):
        result[change.first : change.last] = change.lines
    return result


class Fuzz:
    """Generates cases and runs them in one local sandbox."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.report = Report()
        repo = folder / "repo"
        repo.mkdir()
        subprocess.run(["git", "init", "--quiet"], cwd=repo, check=True)
        self.sandbox = open_sandbox("local", Workspace.create(repo, parent=folder / "copies"))
        self.top = self.sandbox.workspace.path
        self.registry = Registry(ToolContext(self.sandbox))

    def run(self, cases: int) -> Report:
        """Make ``cases`` calls, of each kind in turn; a case without a change makes none."""
        kinds = itertools.cycle((self.edit, self.diff, self.envelope, self.broken))
        while self.report.counts["calls"] < cases:
            kind = next(kinds)
            for path in self.top.iterdir():
                if path.name != ".git":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            self.registry.context.seen.clear()
            kind()
        self.sandbox.close()
        return self.report

    # Cases

    def edit(self) -> None:
        """One edit against ``str.replace``."""
        form, base, endings = self.file()
        data = form.data(base, endings)
        text = "\n".join(base) + ("\n" if form.final and base else "")
        first = self.random.randrange(len(text) + 1)
        last = min(len(text), first + self.random.randrange(1, 40))
        old, new = text[first:last], self.random.choice(["", "new", "a\nb", "\n", "é\n"])
        new = old[:2] + new + old[-2:] if self.random.random() < 0.5 else new
        every = self.random.random() < 0.3
        self.write("a.txt", data)
        seen = self.call(
            "edit", file_path="a.txt", old_string=old, new_string=new, replace_all=every
        )
        count = sum(text.startswith(old, at) for at in range(len(text))) if old else 0
        fits = old and old != new and (count == 1 or (every and count))
        if not fits or not encodable(text.replace(old, new), form):
            self.expect(
                seen, "edit", not seen.ok or not old, {"a.txt": data} if not seen.ok else {}
            )
        elif endings is None:
            wanted = text.replace(old, new).replace("\n", form.newline)
            self.expect(seen, "edit", seen.ok, {"a.txt": form.bom + wanted.encode(form.encoding)})
        else:
            self.expect(seen, "edit", seen.ok, {})
            found = (self.top / "a.txt").read_bytes().decode().replace("\r\n", "\n")
            self.check("edit", found == text.replace(old, new), "mixed endings")

    def diff(self) -> None:
        """Try a patch by git, on files that changed elsewhere meanwhile."""
        before, after = self.folder / "a", self.folder / "b"
        drifted = self.folder / "drifted"
        wanted: dict[str, bytes | None] = {}
        for place in (before, after, drifted):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
        for name in self.random.sample(
            ["one.txt", "sub/two.txt", "näme x.txt"], self.random.randint(1, 3)
        ):
            form, base, _ = self.file(plain=True)
            ours, theirs = self.changes(base)
            fate = self.random.random()
            put(before / name, form.data(base))
            put(drifted / name, form.data(changed(base, theirs)))
            if fate < 0.08 and not theirs:
                wanted[name] = None
            elif fate < 0.16:
                new = name.replace(".txt", ".new")
                put(after / new, form.data(changed(base, ours)))
                wanted[name], wanted[new] = None, form.data(changed(base, ours + theirs))
            else:
                put(after / name, form.data(changed(base, ours)))
                wanted[name] = form.data(changed(base, ours + theirs))
        if self.random.random() < 0.2:
            form, base, _ = self.file(plain=True)
            put(after / "added.txt", form.data(base))
            wanted["added.txt"] = form.data(base)
        # The same names on both sides, as in a repository.
        made = subprocess.run(
            ["git", "diff", "--no-index", "--no-prefix", "-M", "a", "b"],
            cwd=self.folder,
            env=GIT,
            capture_output=True,
            check=False,
        )
        try:
            patch = made.stdout.decode()
        except UnicodeDecodeError:
            return  # such a patch cannot be written as text
        if not patch or "Binary files" in patch:
            return
        # A repository's own diff has no folder before these two.
        for word, side in (("from", "a"), ("to", "b")):
            patch = patch.replace(f"rename {word} {side}/", f"rename {word} ")
            patch = patch.replace(f'rename {word} "{side}/', f'rename {word} "')
        for path in drifted.rglob("*"):
            if path.is_file():
                put(self.top / path.relative_to(drifted), path.read_bytes())
        start = contents(self.top)
        git = self.git_apply(drifted, patch.encode())
        seen = self.call("apply_patch", patch=patch)
        self.judge(
            "diff", seen, start, {k: v for k, v in wanted.items() if v is not None}, git, patch
        )

    def envelope(self) -> None:
        """Try an envelope patch, on a file that changed elsewhere meanwhile."""
        form, base, _ = self.file(plain=True)
        if form.encoding != "utf-8" or not base:
            return
        ours, theirs = self.changes(base)
        if not ours:
            return
        lines = ["*** Begin Patch", "*** Update File: one.txt"]
        reach = 0
        for change in sorted(ours, key=lambda item: item.first):
            before = base[max(reach, change.first - CONTEXT) : change.first]
            after = base[change.last : change.last + CONTEXT]
            lines.append("@@")
            lines += [f" {line}" for line in before]
            lines += [f"-{line}" for line in base[change.first : change.last]]
            lines += [f"+{line}" for line in change.lines]
            lines += [f" {line}" for line in after]
            reach = change.last + len(after)
        patch = "\n".join([*lines, "*** End Patch"])
        self.write("one.txt", form.data(changed(base, theirs)))
        start = contents(self.top)
        seen = self.call("apply_patch", patch=patch)
        self.judge(
            "envelope",
            seen,
            start,
            {"one.txt": form.data(changed(base, ours + theirs))},
            None,
            patch,
        )

    def broken(self) -> None:
        """Try a patch with damage: refused or applied as a whole, and never an exception."""
        form, base, _ = self.file(plain=True)
        ours, _ = self.changes(base)
        put(self.folder / "x" / "one.txt", form.data(base))
        put(self.folder / "y" / "one.txt", form.data(changed(base, ours)))
        made = subprocess.run(
            ["git", "diff", "--no-index", "x/one.txt", "y/one.txt"],
            cwd=self.folder,
            env=GIT,
            capture_output=True,
            check=False,
        )
        lines = (
            made.stdout.decode("utf-8", "replace")
            .replace("x/one", "one")
            .replace("y/one", "one")
            .split("\n")
        )
        if self.random.random() < 0.4:
            body = [
                line
                for line in lines
                if line[:1] in (" ", "-", "+") and line[:3] not in ("---", "+++")
            ]
            lines = ["*** Begin Patch", "*** Update File: one.txt", "@@", *body, "*** End Patch"]
        for _ in range(self.random.randint(1, 3)):
            at = self.random.randrange(len(lines)) if lines else 0
            act = self.random.randrange(5)
            if act == 0:
                lines[at : at + 1] = []
            elif act == 1:
                lines[at:at] = lines[at : at + 1]
            elif act == 2:
                lines = lines[:at]
            elif act == 3:
                lines[at:at] = [self.random.choice(WORDS)]
            else:
                self.random.shuffle(lines)
        self.write("one.txt", form.data(base))
        start = contents(self.top)
        seen = self.call("apply_patch", patch="\n".join(lines))
        self.check(
            "broken", seen.ok or contents(self.top) == start, "a refused patch changed a file"
        )
        self.report.counts["broken: " + ("applied" if seen.ok else "refused")] += 1

    # Parts

    def file(self, *, plain: bool = False) -> tuple[Form, list[str], list[str] | None]:
        """Return a form, lines, and (for mixed endings) an ending for each line."""
        dense = self.random.random() < 0.35
        size = self.random.choice([0, 1, 2, 5, 20, 60])
        lines = [
            self.random.choice(WORDS)
            if dense
            else f"{self.random.choice(WORDS)} {self.random.randrange(10**6)}"
            for _ in range(size)
        ]
        form = Form(final=self.random.random() < 0.8)
        pick = self.random.random()
        if pick < 0.2:
            form.newline = "\r\n"
        elif pick < 0.3 and not plain:
            form.encoding, form.bom = "utf-16-le", b"\xff\xfe"
        elif pick < 0.4:
            form.bom = b"\xef\xbb\xbf"
        elif pick < 0.5 and not plain:
            form.encoding = "latin-1"
            lines = [*lines, "é"]
        elif pick < 0.6 and not plain and lines:
            return form, lines, [self.random.choice(["\n", "\r\n"]) for _ in lines]
        if len(lines) < 1 + (not form.final):
            form.newline = "\n"  # such a file does not show how its lines end
        return form, lines, None

    def changes(self, base: list[str]) -> tuple[list[EditChange], list[EditChange]]:
        """Ours and theirs, too far from each other to share a line of context."""
        ours: list[EditChange] = []
        theirs: list[EditChange] = []
        at = self.random.randrange(4)
        while at <= len(base):
            last = min(len(base), at + self.random.randrange(3))
            lines = [f"new {self.random.randrange(10**6)}" for _ in range(self.random.randrange(3))]
            if self.random.random() < 0.15 and base:
                lines = [self.random.choice(base) for _ in lines]
            if lines or last > at:
                mine = self.random.random() < 0.5
                (ours if mine else theirs).append(EditChange(at, last, lines))
            at = last + 2 * CONTEXT + 2 + self.random.randrange(6)
        return ours, theirs

    def call(self, name: str, **arguments: Any) -> Observation:
        """Call a tool; an exception inside shows in its text."""
        self.report.counts["calls"] += 1
        seen = self.registry.run(name, arguments)
        self.check(name, not seen.text.startswith("internal error"), seen.text)
        return seen

    def write(self, path: str, data: bytes) -> None:
        put(self.top / path, data)

    def git_apply(self, drifted: Path, patch: bytes) -> dict[str, bytes] | None:
        """Return what ``git apply`` makes of the drifted files; None if it refuses."""
        done = subprocess.run(
            ["git", "apply", "--whitespace=nowarn", "-p1", "-"],
            cwd=drifted,
            env=GIT | {"GIT_CEILING_DIRECTORIES": str(self.folder)},
            input=patch,
            capture_output=True,
            check=False,
        )
        return contents(drifted) if done.returncode == 0 else None

    def judge(
        self,
        kind: str,
        seen: Observation,
        start: dict[str, bytes],
        wanted: dict[str, bytes],
        git: dict[str, bytes] | None,
        patch: str,
    ) -> None:
        """Hold what is there now against the model, and against what git made."""
        found = contents(self.top)
        if not seen.ok:
            self.check(kind, found == start, f"a refused patch changed a file:\n{patch}")
            reason = "git too" if git is None else "git applies it"
            if git is None or "places" in seen.text:
                reason = "several places" if "places" in seen.text else reason
            self.report.counts[f"{kind}: refused, {reason}"] += 1
        elif found == wanted:
            self.report.counts[f"{kind}: as the model"] += 1
        elif git is not None and found == git:
            # Repeated lines: the place that the line numbers name is another one by now.
            self.report.counts[f"{kind}: as git, by its line numbers"] += 1
        else:
            self.check(
                kind, False, f"{seen.text}\n{patch}\nstart {start}\nwanted {wanted}\nfound {found}"
            )

    def expect(self, seen: Observation, kind: str, good: bool, files: dict[str, bytes]) -> None:
        """Count the case, and hold its answer and files against what they must be."""
        self.check(kind, bool(good), seen.text)
        for path, data in files.items():
            found = (self.top / path).read_bytes()
            self.check(kind, found == data, f"{seen.text}: {found!r} is not {data!r}")
        self.report.counts[f"{kind}: " + ("made" if seen.ok else "refused")] += 1

    def check(self, kind: str, good: bool, text: str) -> None:
        """Note what went wrong."""
        if not good:
            self.report.wrong.append(f"{kind}: {text}")


def encodable(text: str, form: Form) -> bool:
    """Tell whether the file's encoding has every character."""
    try:
        text.encode(form.encoding)
    except UnicodeEncodeError:
        return False
    return True


def put(path: Path, data: bytes) -> None:
    """Write ``data`` with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def contents(top: Path) -> dict[str, bytes]:
    """Return every file below ``top``, git's own left out."""
    return {
        path.relative_to(top).as_posix(): path.read_bytes()
        for path in sorted(top.rglob("*"))
        if path.is_file() and ".git" not in path.parts
    }


def fuzz(cases: int, seed: int) -> Report:
    """Run ``cases`` cases of ``seed``."""
    with tempfile.TemporaryDirectory() as folder:
        return Fuzz(seed, Path(folder)).run(cases)


def main() -> int:
    """Run, write the results, and say whether all was right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", action="store_true", help="add to the results that are there")
    arguments = parser.parse_args()
    began = time.perf_counter()
    report = fuzz(arguments.cases, arguments.seed)
    before: dict[str, Any] = {"seeds": [], "seconds": 0, "wrong": 0, "counts": {}}
    if arguments.add:
        before |= read("edits")
    result = {
        **machine(),
        "question": "generated edits and patches whose content was wrong, or that raised",
        "seeds": [*before["seeds"], arguments.seed],
        "seconds": before["seconds"] + round(time.perf_counter() - began),
        "wrong": before["wrong"] + len(report.wrong),
        "counts": dict(sorted((report.counts + Counter(before["counts"])).items())),
    }
    record("edits", result)
    print(json.dumps(result, indent=2))
    for text in report.wrong[:5]:
        print(f"WRONG {text}", file=sys.stderr)
    return int(bool(report.wrong))


if __name__ == "__main__":
    sys.exit(main())
