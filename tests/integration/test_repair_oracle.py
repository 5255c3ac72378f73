"""The oracle's runs through the real loop, tools and Docker sandbox are the training documents."""

from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer

from agent.loading import LoadedModel
from agent.run.report import status_of
from agent.run.solve import solve
from agent.sessions.trajectory import session_ids
from agent.settings.table import Settings
from agent.types import Task
from evals.suites.repair import repository
from evals.training import documents, oracle
from evals.training.corpus import Function
from evals.training.make_tasks import tasks_of
from model.chat.chat_format import ChatFormat
from model.chat.tokenizer import Tokenizer as ChatTokenizer
from model.checkpoint.hub import resolve
from model.scripted import scripted_engine

FUNCTIONS = (
    Function(
        "total",
        "ours",
        "def total(values, start):\n    result = start\n    for value in values:\n"
        "        result += value\n    return result",
        (),
        True,
        ("values", "start"),
    ),
    Function(
        "initials",
        "ours",
        "def initials(name, upper=True):\n    parts = [p for p in name.split(' ') if p]\n"
        "    found = ''.join(p[0] for p in parts)\n    return found.upper() if upper else found",
        (),
        True,
        ("name",),
    ),
    Function(
        "area",
        "ours",
        "def area(radius):\n    if radius < 0:\n        return 0\n"
        "    return math.floor(math.pi * radius ** 2)",
        ("import math",),
        True,
        ("radius",),
    ),
)


def scripted(turns: list[str]) -> LoadedModel:
    directory = resolve("embedded")
    tokenizer = ChatTokenizer.load(directory)
    engine = scripted_engine(turns, tokenizer=tokenizer)
    return LoadedModel(engine, ChatFormat.load(directory, tokenizer))


@pytest.mark.docker
@pytest.mark.parametrize("number", range(4))
def test_the_real_loop_exchanges_the_training_text(number, docker_engine, store) -> None:
    function = FUNCTIONS[number % len(FUNCTIONS)]
    task = random.Random(number).choice(tasks_of(function, number, ["helper"], 8))
    document = documents.trajectory(random.Random(number), task, misses=number)
    assert document is not None
    tokenizer = Tokenizer.from_file(str(resolve("embedded") / "tokenizer.json"))
    ids, _ = document.encode(tokenizer)

    turns = [part.split("<|im_end|>")[0] for part in document.text.split(oracle.TURN)[1:]]
    issue, _, check = _asked(document.text).partition("\n\nCheck: ")
    with repository(task.files) as repo:
        report = solve(
            Task(issue, repo, check or None),
            Settings(sandbox="docker"),
            scripted([f"{turn}<|im_end|>" for turn in turns]),
            store=store,
        )
    assert status_of(report.result, report.check) == ("submitted", 0)
    exchanged = session_ids(store.find(report.session).trajectory)
    assert tokenizer.decode(exchanged, skip_special_tokens=False) == document.text
    assert exchanged == ids.tolist()


def _asked(text: str) -> str:
    return text.removeprefix("<|im_start|>user\n").split("<|im_end|>")[0]
