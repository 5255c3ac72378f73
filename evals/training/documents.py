"""Training documents: text with a weight for each part, encoded to ids and token weights.

Two kinds. A *drill* shows one function with several bugs and repairs them one after another: many
decisions for few tokens, and no code has to run. A *trajectory* is a whole run of the agent on a
task whose tests really ran.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from evals.training import oracle
from evals.training.corpus import Function
from evals.training.execute import CaseFailure, run_tests
from evals.training.in_place import mutants_in_place
from evals.training.mutate import Mutant, choose
from evals.training.oracle import OracleRepair
from evals.training.task import RepairTask
from evals.training.testrun import shell_observation
from model.messages import Message

CHECKS = ("", "", "\n\nCheck: python3 -m pytest -q", "\n\nCheck: python3 -m pytest -xq")
"""What ``agent solve --check`` adds to the issue text; half of the runs have no check."""
READ_WEIGHT = 0.25
"""Weight of text the model only reads: code teaches what is usual, tool output little."""
REPEAT_WEIGHT = -0.5
"""Weight of the token that makes a guess a repeated one; below 0, so it becomes less likely."""
REPEATS = 0.35
"""Share of the trajectories with wrong guesses in which one of them is tried again."""


@dataclass
class Document:
    """Parts of text in order, each with the weight of its tokens in the loss.

    At the characters ``unwanted`` stand tokens that the model must learn not to say.
    """

    parts: list[tuple[str, float]] = field(default_factory=list)
    unwanted: list[int] = field(default_factory=list)

    def add(self, text: str, weight: float) -> None:
        """Append a part."""
        self.parts.append((text, weight))

    @property
    def text(self) -> str:
        """All parts joined."""
        return "".join(text for text, _ in self.parts)

    def encode(self, tokenizer: Tokenizer) -> tuple[NDArray[np.uint16], NDArray[np.float16]]:
        """Ids, and the weight of each: that of the part in which the token begins."""
        encoding = tokenizer.encode(self.text, add_special_tokens=False)
        ends = np.cumsum([len(text) for text, _ in self.parts])
        weights = np.array([weight for _, weight in self.parts], dtype=np.float16)
        starts = np.array([start for start, _ in encoding.offsets])
        each = weights[np.searchsorted(ends, starts, side="right")]
        for character in self.unwanted:
            each[np.searchsorted(starts, character, side="right") - 1] = REPEAT_WEIGHT
        return np.array(encoding.ids, dtype=np.uint16), each


def drill(random_: random.Random, function: Function, path: str, most: int) -> Document | None:
    """Write a function with one to ``most`` bugs in different lines, repaired one by one.

    Half of those whose own source is known are shown as they were written.
    """
    written = function.original and random_.random() < 0.5
    shown = replace(function, text=function.original) if written else function
    right = shown.module_text.rstrip("\n")
    bugs: list[Mutant] = []
    text = right
    for _ in range(random_.randint(1, most)):
        used = {bug.line for bug in bugs}
        candidates = [m for m in mutants_in_place(text, function.name) if m.line not in used]
        if not candidates:
            break
        bugs.append(choose(random_, candidates))
        text = bugs[-1].text
    if not bugs:
        return None
    document = Document()
    document.add(f"<|im_start|>user\nRepair `{path}`.\n<tool_response>\n", 0.0)
    document.add(text, READ_WEIGHT)
    document.add(f"\n</tool_response><|im_end|>\n{oracle.TURN}", 0.0)
    random_.shuffle(bugs)
    original = right.split("\n")
    for position, bug in enumerate(bugs):
        attempt = OracleRepair(bug.kind, bug.line, original[bug.line].strip())
        turn = oracle.attempt_turn(path, text, attempt)
        if position:
            document.add(oracle.observation_text([f"Edited {path}: 1 replacement."]), 0.0)
        document.add(oracle.assistant_text(_only_edit(turn)), 1.0)
        text = oracle.replace_line(text, bug.line, attempt.fixed)
    return document


def trajectory(random_: random.Random, task: RepairTask, misses: int) -> Document | None:
    """Write a whole run on ``task``: up to ``misses`` edits that leave the tests red, then the fix.

    The model learns everything it would sample except the guesses that turn out wrong. In some runs
    one of them comes twice; the model learns not to say what makes it the same guess.
    """
    wrong = _wrong_attempts(random_, task, misses)
    texts = [oracle.replace_line(task.module, a.line, a.fixed) for a in wrong]
    fixed = oracle.replace_line(task.module, task.line, task.fixed)
    results = run_tests([task.module, *texts, fixed], task.path, task.test, task.beside)
    if results is None or results[0] is None or results[-1] is not None:
        return None
    tried = [
        (a, failure) for a, failure in zip(wrong, results[1:-1], strict=True) if failure is not None
    ]

    def tests(command: str, failure: CaseFailure | None) -> str:
        return shell_observation(command, failure, task.test_path, task.test)

    document = Document()
    document.add(oracle.user_text(task.issue + random_.choice(CHECKS)), 0.0)
    document.add(oracle.assistant_text(oracle.first_turn(task.path)), 1.0)
    seen = [tests(oracle.FIRST_TEST, results[0]), task.module.removesuffix("\n")]
    document.add(oracle.observation_text(seen[:1]).removesuffix(_TAIL), 0.0)
    document.add("\n<tool_response>\n", 0.0)
    document.add(seen[1], READ_WEIGHT)
    document.add(f"\n</tool_response>{_TAIL}", 0.0)
    edited = f"Edited {task.path}: 1 replacement."
    undo: OracleRepair | None = None
    again = _repeated(random_, tried)
    for number, (attempt, failure) in enumerate([*tried, (task.fix, None)]):
        turn = oracle.attempt_turn(task.path, task.module, attempt, undo)
        if number == again:
            document.unwanted.append(len(document.text) + _difference(turn))
        _add_turn(document, turn, learn_guess=failure is None)
        observed = [edited] * (len(turn.tool_calls) - 1) + [tests(oracle.NEXT_TEST, failure)]
        document.add(oracle.observation_text(observed), 0.0)
        undo = attempt
    document.add(oracle.assistant_text(oracle.last_turn(task.name)), 1.0)
    return document


_TAIL = f"<|im_end|>\n{oracle.TURN}"


def _wrong_attempts(random_: random.Random, task: RepairTask, most: int) -> list[OracleRepair]:
    """Plausible edits that are not the fix, of different lines or content."""
    attempts: list[OracleRepair] = []
    candidates = mutants_in_place(task.module, task.name)
    while candidates and len(attempts) < most:
        mutant = choose(random_, candidates)
        candidates.remove(mutant)
        attempt = OracleRepair(mutant.kind, mutant.line, mutant.buggy)
        if (attempt.line, attempt.fixed) != (task.line, task.fixed):
            attempts.append(attempt)
    return attempts


def _repeated(random_: random.Random, tried: list[tuple[OracleRepair, CaseFailure]]) -> int | None:
    """Put one of the wrong guesses once more at a later place; return that place, if any."""
    if not tried or random_.random() >= REPEATS:
        return None
    at = random_.randrange(1, len(tried) + 1)
    tried.insert(at, random_.choice(tried[:at]))
    return at


def _difference(turn: Message) -> int:
    """Return where in the text of a turn its guess begins to differ from what it replaces."""
    guess = turn.tool_calls[-2].arguments
    old, new = str(guess["old_string"]), str(guess["new_string"])
    pairs = enumerate(zip(old, new, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(old), len(new)))
    mark = "<parameter=new_string>\n"
    return oracle.assistant_text(turn).rindex(mark) + len(mark) + same


def _add_turn(document: Document, turn: Message, *, learn_guess: bool) -> None:
    """Add a turn in parts: undo and test run are always learnt, the guess if it is right."""
    guess = 1.0 if learn_guess else 0.0
    text = oracle.assistant_text(turn)
    calls = ["<tool_call>" + part for part in text.split("<tool_call>")[1:]]
    document.add(text[: text.index("<tool_call>")], guess)
    for position, call in enumerate(calls):
        is_guess = position == len(calls) - 2
        document.add(call, guess if is_guess else 1.0)


def _only_edit(turn: Message) -> Message:
    return Message("assistant", thinking=turn.thinking, tool_calls=turn.tool_calls[:1])
