"""Files that the model knows are offered as drafts, as they are now and once each."""

from __future__ import annotations

from agent.loading import load_model
from agent.loop.conversation import Conversation
from agent.loop.quoting import OfferedFiles
from model.drafting.token_history import TokenHistory
from model.messages import ToolCall
from tools.files.seen import SeenFiles
from tools.types import Observation

CALL = ToolCall("read_file", {})
SEEN = Observation("text")


def test_files_are_offered_when_they_become_known_and_when_they_change() -> None:
    model = load_model("embedded")
    session = model.engine.session()
    conversation = Conversation(session, model.chat, [], model.engine.generation)
    files = SeenFiles()
    overseer = OfferedFiles(files, conversation)

    def follows(text: str) -> bool:
        ids = model.chat.encode_text(text)
        found, _ = session.quotes.seen(TokenHistory(ids[:4]), 60)
        return found == ids[4:]

    files.note("a.py", b"def clamp(x):\n    return low\n")
    assert overseer.after(CALL, SEEN) is SEEN
    assert follows("def clamp(x):\n    return low\n")
    files.note("a.py", b"def clamp(x):\n    return high\n")
    files.note("b.bin", b"\0\1\2" * 50)
    files.note("big.py", b"def clamp(x):\n    return 3\n" * 20_000)
    overseer.after(CALL, SEEN)
    assert follows("def clamp(x):\n    return high\n")
    # A session that takes over after compaction keeps what was offered.
    after = model.engine.session()
    conversation.adopt(after)
    assert after.quotes is session.quotes


def test_what_is_known_already_is_no_news() -> None:
    files = SeenFiles()
    files.note("a", b"1")
    assert files.take_news() == [b"1"]
    files.note("a", b"1")
    assert files.take_news() == []
    files.note("a", b"2")
    files.note("a", b"3")
    assert files.take_news() == [b"3"]
