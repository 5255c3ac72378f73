"""The embedded weights know the texts of today, and one command runs the whole pipeline."""

from __future__ import annotations

import json
import shutil

from tokenizers import Tokenizer as Encoder
from typer.testing import CliRunner

from evals.training import card, oracle
from evals.training.pipeline import app
from evals.training.task import read_tasks
from model.chat.chat_format import ChatFormat
from model.chat.tokenizer import Tokenizer
from model.checkpoint.hub import resolve
from model.engine import Engine
from model.messages import Message

PACKAGE = '''
def {name}(values, start):
    """Add values up."""
    result = start
    for value in values:
        # one by one
        result += value + {number}
    return result


def {name}_twice(text, count):
    if count < {number}:
        return text
    return text + text[: count - {number}]
'''


def test_the_weights_know_the_texts_of_today() -> None:
    """Where this fails, a text changed that the model knows: change it back, or train again.

    ``python -m evals.training.pipeline all --work DIR`` trains, and writes the prints anew.
    """
    directory = resolve("embedded")
    assert json.loads((directory / card.NAME).read_text()) == card.prints(directory)


def test_a_changed_phrase_changes_the_print(monkeypatch) -> None:
    before = card.prints(resolve("embedded"))
    monkeypatch.setattr(oracle, "NEXT_TEST", "python3 -m pytest")
    after = card.prints(resolve("embedded"))
    assert [name for name in before if before[name] != after[name]] == ["documents"]


def test_documents_are_what_the_chat_template_renders() -> None:
    directory = resolve("embedded")
    chat = ChatFormat.load(directory, Tokenizer.load(directory))
    run = card.sample_text()
    asked = run.removeprefix("<|im_start|>user\n").split("<|im_end|>")[0]
    assert asked.startswith(card.ISSUE)
    first = [Message("system", "not rendered"), Message("user", asked)]
    encoder = Encoder.from_file(str(directory / "tokenizer.json"))
    text = encoder.decode(chat.begin(first, [], True), skip_special_tokens=False)
    assert text == oracle.user_text(asked)
    assert run.startswith(text)


def test_the_whole_pipeline_runs_from_one_command(tmp_path) -> None:
    work, target, pins = tmp_path / "work", tmp_path / "model", tmp_path / "pins.txt"
    shutil.copytree(
        resolve("embedded"), target, ignore=shutil.ignore_patterns("*.safetensors", "*on.json")
    )
    pins.write_text("")
    for number, name in enumerate(("networkx", "sympy", "num2words"), start=1):
        package = work / "sources" / name
        package.mkdir(parents=True)
        (package / "sums.py").write_text(PACKAGE.format(name=f"total_{name}", number=number))
    arguments = ["all", "--work", work, "--target", target, "--pins", pins, "--scale", "tiny"]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output

    held_out = {task.source for task in read_tasks(work / "held_out.jsonl")}
    assert held_out == {"num2words"}
    assert "num2words" not in {task.source for task in read_tasks(work / "train.jsonl")}
    steps = [json.loads(line)["step"] for line in done.output.splitlines() if '"step"' in line]
    assert steps == [4]
    assert json.loads((target / card.NAME).read_text()) == card.prints(target)
    assert Engine.load(target, name="trained").fingerprint
