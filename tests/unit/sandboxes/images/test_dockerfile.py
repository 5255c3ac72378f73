"""What a Dockerfile would have the engine fetch is refused without a network."""

from __future__ import annotations

import pytest

from sandboxes.errors import ImageMissing
from sandboxes.images.dockerfile import refuse_fetching

LOCAL = {"tenuto/base:1", "debian:bookworm"}


@pytest.mark.parametrize(
    "text",
    [
        "FROM tenuto/base:1\nADD http://127.0.0.1:8000/x /x",
        "FROM tenuto/base:1\nADD \\\n  https://example.org/x /x",
        "FROM tenuto/base:1\nadd --chown=1:1 HTTP://host/x /x",
        'FROM tenuto/base:1\nADD ["http://host/x", "/x"]',
        "FROM tenuto/base:1\nADD git@github.com:a/b.git /x",
        "FROM tenuto/base:1\nARG U=http://host\nADD $U/x /x",
        "FROM tenuto/base:1\nARG U\nADD ${U:-http://host/x} /x",
        "FROM tenuto/base:1\nONBUILD ADD http://host/x /x",
        "FROM 127.0.0.1:5000/x",
        "ARG B=elsewhere/x\nFROM $B",
        "FROM ${B}",
        "FROM --platform=linux/amd64 nowhere:1 AS one",
        "FROM tenuto/base:1\nCOPY --from=nowhere:1 /a /a",
        "# a comment\nFROM tenuto/base:1 AS a\nFROM b",
    ],
)
def test_what_the_engine_would_fetch_is_refused(text: str) -> None:
    with pytest.raises(ImageMissing, match="--network bridge"):
        refuse_fetching(text, "Dockerfile", LOCAL.__contains__)


@pytest.mark.parametrize(
    "text",
    [
        "FROM tenuto/base:1\nADD file.tar /x\nRUN curl http://host/x",
        "ARG B=debian:bookworm\nFROM $B AS one\nFROM scratch\nCOPY --from=one /a /a",
        "FROM tenuto/base:1\nFROM debian:bookworm\nCOPY --from=0 /a /a\n# ADD http://x /y",
    ],
)
def test_what_is_here_is_built(text: str) -> None:
    refuse_fetching(text, "Dockerfile", LOCAL.__contains__)
