"""``agent eval export``: what was sampled, as it was sampled, for training and analysis.

For each attempt two files:

``ID.N.json``         the trajectory in ATIF, the Agent Trajectory Interchange Format (version 1.8),
                      with the ids and log-probabilities of every sampled token
``ID.N.safetensors``  the session as tensors over its ``T`` tokens:
                      ``token_ids`` int64, ``sampled`` bool (False: put there by a prompt),
                      ``logprobs`` float32 (NaN where not sampled), ``step`` int32 (from 0;
                      a prompt belongs to the step it leads to), and ``reward`` float32
                      ``[1]`` (NaN if it was not graded)

Pictures are in ``pictures/``, each once, named by the hash of their pixels; ATIF's steps refer to
them. The ids of their tokens are negative and name them (see ``model.vision.image_ids``).

The ids are those that ran through the network, in order. Nothing is decoded and encoded again, so
a model that is trained on them sees what it sampled. Reasoning that was dropped on purpose is left
out as it was from the session; the mask then covers the tokens that were still there at the end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from agent import version
from agent.cli.output import write_err
from agent.sessions.history import live_records
from agent.sessions.pictures import FOLDER as PICTURES
from agent.sessions.pictures import keep_pictures
from agent.sessions.records import PromptRecord, Record
from agent.sessions.trajectory import pictures_of, read_records
from agent.types import Step
from evals.errors import RunError
from evals.report.summary import summarize
from evals.report.trace import Trace, TracePrompt, trace_of
from evals.run.folder import RunFolder
from model.errors import PictureError
from model.vision.picture import Picture

ATIF = "ATIF-v1.8"
LEAST_LOGPROB = -1e9
"""What stands in ATIF for minus infinity, which JSON does not have."""


@dataclass(frozen=True)
class SessionTokens:
    """A session's tokens in order, each with its log-probability (None: not sampled) and step."""

    ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    steps: tuple[int, ...]


def tokens_of(records: Iterable[Record]) -> SessionTokens:
    """Return the live tokens of a trajectory."""
    ids: list[int] = []
    logprobs: list[float | None] = []
    steps: list[int] = []
    taken = 0
    for record in live_records(records):
        if isinstance(record, PromptRecord):
            at = len(ids) if record.at is None else record.at
            del ids[at:], logprobs[at:], steps[at:]
            ids += record.ids
            logprobs += [None] * len(record.ids)
            steps += [taken] * len(record.ids)
        elif isinstance(record, Step):
            ids += record.token_ids
            forced = set(record.forced)
            logprobs += [None if i in forced else p for i, p in enumerate(record.logprobs)]
            steps += [taken] * len(record.token_ids)
            taken += 1
    return SessionTokens(tuple(ids), tuple(logprobs), tuple(steps))


def tensors_of(tokens: SessionTokens, reward: float | None) -> dict[str, Tensor]:
    """Return the tensors that the module describes."""
    values = [math.nan if value is None else value for value in tokens.logprobs]
    return {
        "token_ids": torch.tensor(tokens.ids, dtype=torch.int64),
        "sampled": torch.tensor([value is not None for value in tokens.logprobs]),
        "logprobs": torch.tensor(values, dtype=torch.float32),
        "step": torch.tensor(tokens.steps, dtype=torch.int32),
        "reward": torch.tensor([math.nan if reward is None else reward], dtype=torch.float32),
    }


def atif_of(
    trace: Trace, appended: Sequence[Sequence[int]], extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the trajectory as ATIF. ``appended`` are the prompt ids that lead to each step."""
    steps: list[dict[str, Any]] = []
    counts = {"prompt": 0, "completion": 0, "cached": 0}
    prompts = iter(appended)
    for entry in trace.entries:
        if isinstance(entry, TracePrompt):
            for message in entry.messages:
                source = "system" if message.role == "system" else "user"
                content = _content(message.content, message.pictures)
                steps.append({"source": source, "message": content})
        elif isinstance(entry, Step):
            step = _agent_step(entry, next(prompts, ()))
            steps.append(step)
            counts["prompt"] += step["metrics"]["prompt_tokens"]
            counts["completion"] += step["metrics"]["completion_tokens"]
            counts["cached"] += step["metrics"]["cached_tokens"]
    about = trace.about
    return {
        "schema_version": ATIF,
        "session_id": about.id,
        "agent": {"name": "tenuto", "version": version(), "model_name": about.model},
        "steps": [{"step_id": number, **step} for number, step in enumerate(steps, start=1)],
        "final_metrics": {
            "total_prompt_tokens": counts["prompt"],
            "total_completion_tokens": counts["completion"],
            "total_cached_tokens": counts["cached"],
            "total_steps": len(steps),
        },
        "extra": {
            "fingerprint": about.fingerprint or None,
            "tokenizer": about.tokenizer or None,
            "seed": about.seed,
            "sampling": about.sampling or None,
            **extra,
        },
    }


def _content(text: str, pictures: Sequence[object]) -> str | list[dict[str, Any]]:
    """Return ATIF's content: the text alone, or parts with the pictures before it."""
    parts: list[dict[str, Any]] = [
        {
            "type": "image",
            "source": {
                "media_type": picture.media_type,
                "path": f"{PICTURES}/{picture.digest}.{picture.ending}",
            },
        }
        for picture in pictures
        if isinstance(picture, Picture)
    ]
    return [*parts, {"type": "text", "text": text}] if parts else text


def _keep_pictures(target: Path, records: Iterable[Record]) -> None:
    """Store the pictures of ``records``; one whose file is gone is left out. Raises ``OSError``."""
    for record in records:
        for picture in pictures_of(record):
            with suppress(PictureError):
                keep_pictures(target, [picture])


def _agent_step(step: Step, appended: Sequence[int]) -> dict[str, Any]:
    usage, message = step.usage, step.message
    prompt = usage.context_tokens - usage.generated_tokens
    values = [value if math.isfinite(value) else LEAST_LOGPROB for value in step.logprobs]
    # Places in completion_token_ids of tokens that were put there, so that nobody trains on them.
    forced = {"forced": list(step.forced)} if step.forced else {}
    data: dict[str, Any] = {
        "source": "agent",
        "message": message.content,
        "llm_call_count": 1,
        "metrics": {
            "prompt_tokens": prompt,
            "completion_tokens": usage.generated_tokens,
            "cached_tokens": max(0, prompt - usage.prefilled_tokens),
            "completion_token_ids": list(step.token_ids),
            "logprobs": values,
            # The whole prompt is what the steps before hold, and these.
            "extra": {"appended_token_ids": list(appended), "ended": step.ended, **forced},
        },
    }
    if message.thinking:
        data["reasoning_content"] = message.thinking
    names = [f"call-{step.index + 1}-{n}" for n in range(1, len(message.tool_calls) + 1)]
    if names:
        data["tool_calls"] = [
            {
                "tool_call_id": name,
                "function_name": call.name,
                "arguments": dict(call.arguments),
                **({"extra": {"error": call.error}} if call.error else {}),
            }
            for name, call in zip(names, message.tool_calls, strict=True)
        ]
    if step.observations:
        data["observation"] = {
            "results": [
                {"source_call_id": name, "content": _content(seen.text, seen.pictures)}
                for name, seen in zip(names, step.observations, strict=False)
            ]
        }
    return data


def prompts_of(records: Iterable[Record]) -> list[Sequence[int]]:
    """Return the prompt ids before each step; empty for a step that went on with a turn."""
    found: list[Sequence[int]] = []
    waiting: Sequence[int] = ()
    for record in live_records(records):
        if isinstance(record, PromptRecord):
            waiting = record.ids
        elif isinstance(record, Step):
            found.append(waiting)
            waiting = ()
    return found


def export(folder: RunFolder, target: Path) -> int:
    """Write both files of every attempt of a run to ``target``; returns the exit code."""
    summary = summarize(folder)
    count = 0
    try:
        target.mkdir(parents=True, exist_ok=True)
        for attempt in summary.attempts:
            result, verdict = attempt.result, attempt.verdict
            path = folder.attempt(result.instance_id, result.attempt) / "trajectory.jsonl"
            if not path.is_file():
                continue
            records = list(read_records(path))
            graded = verdict is not None and verdict.resolved is not None
            reward = verdict.reward if verdict is not None and graded else None
            about = {
                "instance_id": result.instance_id,
                "attempt": result.attempt,
                "exit_status": result.exit_status,
                "outcome": attempt.outcome,
                "reward": reward,
            }
            name = f"{result.instance_id}.{result.attempt}"
            atif = atif_of(trace_of(records), prompts_of(records), about)
            _keep_pictures(target, records)
            (target / f"{name}.json").write_text(json.dumps(atif) + "\n")
            save_file(
                tensors_of(tokens_of(records), reward),
                target / f"{name}.safetensors",
                {key: json.dumps(value) for key, value in {**about, **atif["extra"]}.items()},
            )
            count += 1
    except OSError as error:
        raise RunError(f"cannot write in {target}: {error.strerror}") from error
    write_err(f"{target}: {count} attempts, each as .json (ATIF) and .safetensors\n")
    return 0
