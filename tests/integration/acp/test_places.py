"""An editor that has a folder below the top open, and one whose repository was moved since."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.acp_client import Refused, Served


def test_a_session_of_a_folder_below_the_top_is_loaded_where_the_repository_moved_to(
    git_repo, script, placed_model, store
) -> None:
    repo = git_repo({"top.txt": "top\n", "sub/a.txt": "a\n"})
    look = script.turn(script.call("run_shell_command", command="cat top.txt sub/a.txt"))
    model = placed_model(look, script.turn(content="Seen."), script.turn(content="Here."))

    async def first() -> str:
        async with Served(model, store) as client:
            await client.initialize(fs={})
            session = await client.new(repo / "sub")
            await client.prompt(session, "look")
            for cwd in (repo / "sub", repo):
                found = await client.request("session/list", cwd=str(cwd))
                assert [(s["sessionId"], s["cwd"]) for s in found["sessions"]] == [
                    (session, str(repo / "sub"))
                ]
            return session

    async def second(session: str) -> None:
        async with Served(model, store) as client:
            await client.initialize(fs={})
            with pytest.raises(Refused, match="is one of"):
                await client.request(
                    "session/load", sessionId=session, cwd=str(repo.parent), mcpServers=[]
                )
            where = {"cwd": str(moved / "sub"), "mcpServers": []}
            await client.request("session/load", sessionId=session, **where)
            ended = await client.prompt(session, "and now?")
            assert ended["stopReason"] == "end_turn"

    session = asyncio.run(first())
    assert "top\\na" in store.find(session).trajectory.read_text()
    moved = repo.rename(repo.with_name("moved"))
    asyncio.run(second(session))
    assert store.find(session).info.place == moved / "sub"
