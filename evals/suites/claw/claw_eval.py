"""Claw-Eval: the task's own tools over its own services, graded by the makers' graders.

``--dataset`` is a checkout of ``claw-eval/claw-eval``; nothing of it is copied. A task's services
run in a container of their own without a network, and the model's calls are carried in and out of
it (``evals.suites.claw.box``). The model's own tools work in its sandbox on the task's files. What
was said and called is the work that is graded, in another container of the checkout.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from evals.instance import Instance, TaskPlace, Verdict
from evals.judge import open_door
from evals.run.talk import Talk, Transcript
from evals.scratch import scratch_folder
from evals.suites.claw import box
from evals.suites.claw.said import TRACE, Record, call_record, spoken, write_down
from evals.suites.claw.snapshot import take_snapshot
from evals.suites.claw.task_files import (
    file_names,
    find_checkout,
    find_file,
    missing_files,
    needs_web,
    read_tasks,
)
from evals.suites.dataset import unique
from evals.suites.images import begin_repository
from evals.suites.suite import OUTPUT_KEPT, Machine
from model.errors import PictureError
from model.vision.picture import Picture, read_picture_file
from sandboxes.base import Sandbox
from sandboxes.errors import SandboxError, SandboxUnavailable
from tools.errors import ToolFailure
from tools.mcp.cleaning import reduce_schema
from tools.mcp.tool import AnyArguments, McpTool
from tools.text.truncate import clean_output, cut_middle
from tools.types import Observation, ToolContext, ToolSpec

RECORD = "verifier.json"
"""The file in which an attempt keeps what its grader reads."""
START_S, CALL_S, AUDIT_S = 600.0, 45.0, 60.0
MAX_CHARACTERS = 50_000
PERSONA = (
    "You play a user who talks with an assistant. Stay in this role; never say that you are a "
    "program.\n\n{persona}\n\nAnswer what the assistant asks from what you know, in one to three "
    "natural sentences. What you do not know you do not invent. When the assistant has given all "
    "that you wanted and you have nothing more to ask, answer with [DONE] alone."
)
DONE = "[DONE]"


class ClawEval:
    """The suite of office tasks with services, personas and graders of their own."""

    name = "claw-eval"

    def load(self, dataset: str | None) -> list[Instance]:
        """Read the tasks. ``dataset`` is a checkout of the makers' repository."""
        return unique(read_tasks(find_checkout(dataset)))

    @contextmanager
    def place(self, instance: Instance, machine: Machine) -> Iterator[TaskPlace]:
        task = instance.row["task"]
        environment = task.get("environment", {})
        own = machine.settings
        if lacks := missing_files(instance):
            machine.tell(f"{instance.id}: the checkout lacks {', '.join(lacks)}")
        with ExitStack() as stack:
            folder = stack.enter_context(scratch_folder("claw"))
            repo = folder / "workspace"
            repo.mkdir()
            for name in file_names(task):
                if (path := find_file(instance, name)) is not None and ".." not in Path(name).parts:
                    (repo / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, repo / name)
            begin_repository(repo)
            office = _Office.open(instance, machine, stack)
            turns = int(environment.get("max_turns") or own.max_steps)
            limit = float(environment.get("timeout_seconds") or 300)
            settings = {
                "ignored_files": True,
                "max_steps": min(own.max_steps, turns),
                "max_wall_time": own.max_wall_time or limit,
            }
            talk = Talk(office.end, office.reply, office.tools(), _pictures(instance))
            yield TaskPlace(repo, settings, talk=talk)

    def grade(
        self,
        instances: Sequence[Instance],
        patches: Mapping[str, str],
        machine: Machine,
        *,
        folder: Path,
        workers: int = 1,
    ) -> list[Verdict]:
        """Run each task's grader over what its attempt left in ``folder``."""

        def one(instance: Instance) -> Verdict:
            try:
                return _grade(instance, folder / instance.id / RECORD, machine)
            except SandboxError as error:
                return Verdict(instance.id, None, reason=f"not graded: {error}")

        chosen = [instance for instance in instances if instance.id in patches]
        with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
            return list(pool.map(one, chosen))


class _Office:
    """The services of one attempt, the calls that they had, and the user who waits."""

    def __init__(self, instance: Instance, machine: Machine, opened: box.Box | None) -> None:
        self._instance = instance
        self._machine = machine
        self._box = opened
        self._task: Mapping[str, Any] = instance.row["task"]
        self._calls: list[Record] = []
        self._rounds = 0

    @classmethod
    def open(cls, instance: Instance, machine: Machine, stack: ExitStack) -> _Office:
        """Start the services of ``instance``, if it has any. Raises ``SandboxUnavailable``."""
        services = instance.row["task"].get("services") or []
        if not services:
            return cls(instance, machine, None)
        image = box.find_image(machine, instance.id)
        checkout, web = Path(instance.row["checkout"]), needs_web(instance.row["task"])
        opened = stack.enter_context(box.open_box(image, checkout, machine, web=web))
        begun = opened.run("inside.py", ["start"], {"services": services}, timeout_s=START_S)
        if wrong := begun.get("error"):
            raise SandboxUnavailable(str(wrong))
        return cls(instance, machine, opened)

    def tools(self) -> tuple[ToolSpec, ...]:
        """Return the task's own tools, under its own names."""
        reached = {item["tool_name"]: item for item in self._task.get("tool_endpoints") or ()}
        return tuple(
            self._tool(tool, reached[tool["name"]])
            for tool in self._task.get("tools") or ()
            if tool["name"] in reached
        )

    def _tool(self, tool: Mapping[str, Any], endpoint: Mapping[str, Any]) -> ToolSpec:
        name = str(tool["name"])

        def run(context: ToolContext, parameters: AnyArguments) -> Observation:
            return self._call(name, endpoint, dict(parameters.model_extra or {}))

        return McpTool(
            name=name,
            description=clean_output(str(tool["description"])),
            parameters=AnyArguments,
            run=run,
            kind="external",
            schema_given=reduce_schema(dict(tool.get("input_schema") or {"type": "object"}))[0],
        )

    def _call(self, name: str, endpoint: Mapping[str, Any], body: dict[str, Any]) -> Observation:
        if self._box is None:
            raise ToolFailure(f"{name} has no service")
        url, method = str(endpoint["url"]), str(endpoint.get("method") or "POST")
        spec = {"url": url, "method": method, "body": body}
        try:
            answer = self._box.run("inside.py", ["call"], spec, timeout_s=CALL_S)
        except SandboxError as error:
            answer = {"status": 500, "body": {"error": str(error)}, "latency_ms": 0.0}
        self._calls.append(call_record(name, url, body, answer))
        text = json.dumps(answer["body"], ensure_ascii=False)
        shown, cut = cut_middle(clean_output(text), MAX_CHARACTERS)
        return Observation(shown, ok=answer["status"] < 400, truncated=cut)

    def reply(self, said: Transcript) -> str | None:
        """Return what the task's user says next; None if there is none or it is satisfied."""
        user, judge = self._task.get("user_agent") or {}, self._machine.judge
        if not user.get("enabled") or judge is None:
            return None
        if self._rounds >= int(user.get("max_rounds") or 3):
            return None
        talk = "\n".join(f"[{role}]: {words}" for role, words in spoken(said))
        asked = [
            {"role": "system", "content": PERSONA.format(persona=user.get("persona", ""))},
            {"role": "user", "content": f"{talk}\n\nWhat do you answer to the assistant?"},
        ]
        # A judge that fails is no fault of the model: its error ends the attempt, to be done again.
        words = judge.answer(asked, temperature=0.7, max_tokens=2048).strip()
        if not words or DONE in words:
            return None
        self._rounds += 1
        # The graders tell the user's later words from the task by this line.
        return f"[user_agent]\n{words}"

    def end(self, sandbox: Sandbox, said: Transcript) -> Mapping[str, bytes]:
        """Return the record that the grader reads."""
        messages, calls = write_down(said, self._calls)
        services = self._task.get("services") or []
        audit = {}
        if self._box is not None:
            audit = self._box.run("inside.py", ["audit"], {"services": services}, timeout_s=AUDIT_S)
        record = {
            "messages": messages,
            "dispatches": calls,
            "audit": audit,
            "snapshot": take_snapshot(self._instance, sandbox),
            "media": [_media(picture) for picture in _pictures(self._instance)],
            "rounds": self._rounds,
        }
        return {RECORD: json.dumps(record, ensure_ascii=False).encode("utf-8", "replace")}


def _grade(instance: Instance, record: Path, machine: Machine) -> Verdict:
    """Grade one attempt. Raises ``SandboxError``."""
    if not record.is_file():
        reason = "the run left no record; run the instance again"
        return Verdict(instance.id, None, reason=reason)
    image = box.find_image(machine, instance.id)
    with scratch_folder("grader") as folder:
        door = folder / "judge"
        door.mkdir()
        folder.chmod(0o755)
        copy = folder / "record.json"
        shutil.copyfile(record, copy)
        extra = {copy: "/record.json", door: "/judge"}
        with (
            open_door(machine.judge, door),
            box.open_box(image, Path(instance.row["checkout"]), machine, extra) as opened,
        ):
            limit = machine.settings.check_timeout
            found = opened.run("grading.py", [instance.id], timeout_s=limit)
    if "score" not in found:
        reason = f"not graded: {found.get('ungraded', 'its grader said nothing')}"
        return Verdict(instance.id, None, reason=reason)
    told = json.dumps({"scores": found["scores"], "judge": found["judge"]}, ensure_ascii=False)
    score, passed = min(max(float(found["score"]), 0.0), 1.0), bool(found["passed"])
    reason = "" if passed else f"its grader gave {score:g}"
    return Verdict(instance.id, passed, score, reason, told[-OUTPUT_KEPT:])


def _pictures(instance: Instance) -> tuple[Picture, ...]:
    """Return the task's attachments that are pictures."""
    found = []
    for name in instance.row["task"].get("prompt", {}).get("attachments") or ():
        if (path := find_file(instance, str(name))) is not None:
            with suppress(PictureError, OSError):
                found.append(read_picture_file(path))
    return tuple(found)


def _media(picture: Picture) -> Record:
    data = picture.data
    return {
        "type": "media_load",
        "trace_id": TRACE,
        "modality": "image",
        "source_path": picture.name,
        "mime_type": picture.media_type,
        "size_bytes": len(data),
        "sha256": sha256(data).hexdigest(),
    }
