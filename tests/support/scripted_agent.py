"""``agent solve`` as a process of its own whose model speaks from a script.

Arguments: a checkpoint folder (for tokenizer and template), a repository, a file with the turns as
a JSON list, then flags of ``agent solve``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> int:
    """Run it; returns the exit code."""
    from agent.cli import solve
    from agent.loading import LoadedModel
    from model.chat.chat_format import ChatFormat
    from model.chat.tokenizer import Tokenizer
    from model.scripted import scripted_engine

    checkpoint, repo, turns, *flags = sys.argv[1:]
    tokenizer = Tokenizer.load(Path(checkpoint))
    script = [turn + "<|im_end|>" for turn in json.loads(Path(turns).read_text())]
    engine = scripted_engine(script, tokenizer=tokenizer, context_length=1 << 20)
    model = LoadedModel(engine, ChatFormat.load(Path(checkpoint), tokenizer))
    settings = dict(flag.split("=", 1) for flag in flags)
    interactive = {"yes": True, "no": False}.get(settings.pop("interactive", ""))
    return solve.run("do it", Path(repo), settings, interactive=interactive, model=model)


if __name__ == "__main__":
    sys.exit(main())
