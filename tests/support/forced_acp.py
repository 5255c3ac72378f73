"""``agent acp`` as a process of its own whose model computes as always and says what it is told to.

Arguments: a file with the turns as a JSON list, then what follows ``agent``. Every pass of the
network is run and every token sampled, so states, sessions and times are real; but the token that
stays is the script's. Which one a sampled or greedy token is depends on the processor.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any


def force(turns: list[str]) -> None:
    """Turn n of ``turns`` follows the n-th generation prompt of a session of the embedded model."""
    import model.session as sessions
    from model.chat.tokenizer import Tokenizer
    from model.checkpoint import hub
    from model.session import Session, TokenEvent

    tokenizer = Tokenizer.load(hub.resolve("embedded"))
    start = tuple(tokenizer.encode_markup("<|im_start|>assistant"))
    opening = tuple(tokenizer.encode_markup("<|im_start|>assistant\n<think>\n"))
    script = [tokenizer.encode_markup(turn + "<|im_end|>") for turn in turns]
    sample, choose = Session._step, sessions.choose
    here = threading.local()

    def step(self: Session, *arguments: Any) -> TokenEvent:
        here.ids = self.ids
        return sample(self, *arguments)

    def forced(*arguments: Any) -> TokenEvent:
        ids = here.ids
        begins = [at for at in range(len(ids)) if ids[at : at + len(start)] == start]
        turn = script[min(len(begins), len(script)) - 1]
        token = turn[min(len(ids) - begins[-1] - len(opening), len(turn) - 1)]
        return dataclasses.replace(choose(*arguments), id=token)

    Session._step = step  # type: ignore[method-assign]
    sessions.choose = forced  # type: ignore[assignment]


def main() -> None:
    """Serve, with the model forced once it is loaded."""
    from agent.acp import server
    from agent.cli.main import main as agent

    turns = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    make_hub = server._make_hub

    def forced(flags: dict[str, Any]) -> Any:
        force(turns)
        # None of this may come between the frames.
        sys.stdout.write("from a library\n")
        sys.stdout.flush()
        subprocess.run(["echo", "from a child"], check=True)
        return make_hub(flags)

    server._make_hub = forced
    sys.argv[1:] = sys.argv[2:]
    agent()


if __name__ == "__main__":
    main()
