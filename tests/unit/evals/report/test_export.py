"""What leaves for training is what was sampled: no token is decoded and encoded on the way."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from agent.loading import LoadedModel
from agent.run.solve import solve
from agent.sessions.pictures import keep_pictures, picture_to_json
from agent.sessions.records import records_from_json
from agent.sessions.store import SessionStore
from agent.sessions.trajectory import read_records
from agent.settings.table import Settings
from agent.types import Task
from evals.report.export import LEAST_LOGPROB, export, tensors_of, tokens_of
from model.chat.chat_format import ChatFormat
from model.chat.tokenizer import Tokenizer
from model.engine import Engine
from model.vision.image_ids import image_ids, image_runs
from model.vision.picture import read_picture
from tests.support.sample_run import make_run
from tests.support.sighted import png


def test_both_files_of_an_attempt(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", {"a": [True], "b": [None]})
    assert export(run, tmp_path / "out") == 0
    tensors = load_file(tmp_path / "out" / "a.1.safetensors")
    assert tensors["token_ids"].tolist() == [1, 2, 3, 11, 12, 13, 14, 15, 16, 17]
    assert tensors["sampled"].tolist() == [*[False] * 3, *[True] * 3, *[False] * 2, *[True] * 2]
    assert tensors["step"].tolist() == [0] * 6 + [1] * 4
    assert tensors["logprobs"].tolist()[3:6] == [-0.5, -0.25, -math.inf]
    assert tensors["logprobs"].isnan().tolist() == [not s for s in tensors["sampled"].tolist()]
    assert tensors["reward"].tolist() == [1.0]
    assert load_file(tmp_path / "out" / "b.1.safetensors")["reward"].isnan().all()
    with safe_open(tmp_path / "out" / "a.1.safetensors", "pt") as file:
        about = {key: json.loads(value) for key, value in file.metadata().items()}
    assert (about["instance_id"], about["reward"], about["fingerprint"]) == ("a", 1.0, "f")


def test_the_trajectory_keeps_the_rules_of_atif(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", {"a": [True]})
    export(run, tmp_path / "out")
    data: dict[str, Any] = json.loads((tmp_path / "out" / "a.1.json").read_text())
    assert data["schema_version"] == "ATIF-v1.8"
    assert set(data) <= {
        *("schema_version", "session_id", "agent", "steps", "notes", "final_metrics", "extra")
    }
    assert [step["step_id"] for step in data["steps"]] == [1, 2, 3, 4]
    assert [step["source"] for step in data["steps"]] == ["system", "user", "agent", "agent"]
    for step in data["steps"][:2]:
        assert set(step) == {"step_id", "source", "message"}
    for step in data["steps"][2:]:
        calls = {call["tool_call_id"] for call in step["tool_calls"]}
        assert {seen["source_call_id"] for seen in step["observation"]["results"]} <= calls
        metrics = step["metrics"]
        assert len(metrics["completion_token_ids"]) == len(metrics["logprobs"])
        assert metrics["completion_tokens"] == len(metrics["logprobs"])
        assert all(math.isfinite(value) for value in metrics["logprobs"])
    assert data["steps"][2]["metrics"]["logprobs"] == [-0.5, -0.25, LEAST_LOGPROB]
    ids: list[int] = []
    for step in data["steps"][2:]:
        ids += step["metrics"]["extra"]["appended_token_ids"]
        assert step["metrics"]["prompt_tokens"] == len(ids)
        ids += step["metrics"]["completion_token_ids"]
    assert ids == load_file(tmp_path / "out" / "a.1.safetensors")["token_ids"].tolist()


def test_pictures_are_stored_once_and_named_by_the_steps(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", {"a": [True]})
    place = run.attempt("a", 1)
    shown, gone = read_picture(png(20, 30), "design.png"), read_picture(png(8, 8), "gone.png")
    keep_pictures(place, [shown])
    lines = [json.loads(line) for line in (place / "trajectory.jsonl").read_text().splitlines()]
    (prompt,) = [n for n, line in enumerate(lines) if "system" in str(line.get("messages"))]
    lines[prompt]["messages"][1]["pictures"] = [picture_to_json(shown)]
    lines[prompt]["ids"] = [1, 2, *image_ids(shown.digest, 16)]
    step = lines[prompt + 1]
    step["observations"][0]["pictures"] = [picture_to_json(p) for p in (shown, gone)]
    (place / "trajectory.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    assert export(run, tmp_path / "out") == 0
    data: dict[str, Any] = json.loads((tmp_path / "out" / "a.1.json").read_text())
    first = data["steps"][1]["message"]
    assert first[-1] == {"type": "text", "text": "plain"}
    assert [part["type"] for part in first] == ["image", "text"]
    seen = data["steps"][2]["observation"]["results"][0]["content"]
    assert [part["type"] for part in seen] == ["image", "image", "text"]
    source = first[0]["source"]
    assert source == seen[0]["source"] and source["media_type"] == "image/png"
    assert (tmp_path / "out" / source["path"]).read_bytes() == png(20, 30)
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 1
    ids = load_file(tmp_path / "out" / "a.1.safetensors")["token_ids"].tolist()
    assert next(image_runs(ids[2:])).digest == shown.digest


def test_tokens_that_were_cut_are_not_exported() -> None:
    records = [
        {"type": "prompt", "messages": [], "ids": [1, 2, 3, 4]},
        {"type": "prompt", "messages": [], "ids": [9], "at": 2},
    ]
    assert tokens_of(records_from_json(records)).ids == (1, 2, 9)


def test_the_ids_run_through_the_network_again_give_the_recorded_logprobs(
    tmp_path: Path, tiny_checkpoint: Path, tiny_tokenizer: Tokenizer, git_repo: Any
) -> None:
    """Random weights sample text that no tokenizer would split so; the ids survive all the same."""
    engine = Engine.load(tiny_checkpoint, name="tiny", vocab_limit=tiny_tokenizer.vocab_size)
    model = LoadedModel(engine, ChatFormat.load(tiny_checkpoint, tiny_tokenizer))
    store = SessionStore(tmp_path / "sessions")
    settings = Settings(
        sandbox="local", max_steps=2, max_turn_tokens=40, temperature=1.0, seed=4, warm_cache_mb=0
    )
    report = solve(Task("Mend it.", git_repo({"a.py": "x = 1\n"})), settings, model, store=store)

    tensors = tensors_of(tokens_of(read_records(store.find(report.session).trajectory)), None)
    ids, sampled = tensors["token_ids"], tensors["sampled"]
    assert int(sampled.sum()) == sum(len(step.token_ids) for step in report.result.steps) > 0
    turn = [int(i) for i in report.result.steps[0].token_ids]
    assert tiny_tokenizer.encode_markup(tiny_tokenizer.decode(turn)) != turn

    state, logits, told = engine.network.new_state(), torch.empty(0), []
    pieces = [
        list(part) for _, part in itertools.groupby(range(len(ids)), lambda at: bool(sampled[at]))
    ]
    for piece in pieces:
        if not sampled[piece[0]]:
            logits, state = engine.scheduler.forward(ids[piece].tolist(), state)
            continue
        for at in piece:
            told.append(float(torch.log_softmax(logits.double(), -1)[ids[at]]))
            logits, state = engine.scheduler.forward([int(ids[at])], state)
    recorded = tensors["logprobs"][sampled].double()
    assert torch.allclose(torch.tensor(told).double(), recorded, atol=1e-3)
