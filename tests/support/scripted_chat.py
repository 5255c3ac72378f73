"""A chat as a process of its own whose model speaks from a script.

Arguments: a checkpoint folder (for tokenizer and template), a repository, a file with the turns as
a JSON list, then ``--resume=ID`` or flags as ``key=value``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> int:
    """Run it; return the exit code."""
    from agent.chat.terminal_chat import chat
    from agent.chat.wanted import Opening, Wanted

    checkpoint, repo, turns, *flags = sys.argv[1:]
    resume = next((flag[9:] for flag in flags if flag.startswith("--resume=")), None)
    settings = dict(flag.split("=", 1) for flag in flags if not flag.startswith("--"))
    _script(Path(checkpoint), json.loads(Path(turns).read_text()))
    own = Path(repo).parent / "own-chat"
    own.mkdir(exist_ok=True)
    wanted = Wanted(Path(repo), {"sandbox": "local", **settings}, resume)
    opening = Opening(wanted.repo, wanted.mode, lambda: wanted)
    return chat(opening, plain="--plain" in flags, history=own / "history", own=own)


def _script(checkpoint: Path, turns: list[str]) -> None:
    """Let whatever checkpoint is loaded speak the turns."""
    import agent.chat.chat_session as sessions

    def load(settings: object, name: str | None = None) -> object:
        from agent.loading import LoadedModel
        from model.chat.chat_format import ChatFormat
        from model.chat.tokenizer import Tokenizer
        from model.checkpoint.config import ModelConfig
        from model.engine import Engine
        from model.sampling import SamplingParams
        from tests.support.placed import PlacedNetwork

        tokenizer = Tokenizer.load(checkpoint)
        encode = tokenizer.encode_markup
        network = PlacedNetwork(
            [encode(turn + "<|im_end|>") for turn in turns],
            tokenizer.vocab_size,
            tuple(encode("<|im_start|>assistant")),
            tuple(encode("<|im_start|>assistant\n<think>\n")),
            1 << 20,
        )
        config = ModelConfig.tiny(vocab_size=network.vocab_size, context_length=1 << 20)
        engine = Engine(network, config, name="scripted", generation=SamplingParams())
        return LoadedModel(engine, ChatFormat.load(checkpoint, tokenizer))

    sessions.load_for = load  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
