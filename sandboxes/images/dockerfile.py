"""Refusal of what the engine itself would fetch for a Dockerfile, past its steps' network."""

from __future__ import annotations

import re
from collections.abc import Callable

from sandboxes.errors import ImageMissing

_REMOTE = re.compile(r"(?:[a-z][a-z0-9+.-]*://|git@|github\.com/)", re.IGNORECASE)


def refuse_fetching(text: str, name: str, has_image: Callable[[str], bool]) -> None:
    """Raise ``ImageMissing`` if building the Dockerfile ``name`` has the engine fetch something.

    These are images that are not on this machine, and addresses in ``ADD``.
    """
    stages: set[str] = set()
    variables: dict[str, str] = {}
    for words in _instructions(text):
        verb = words[0].upper()
        if verb == "ONBUILD" and len(words) > 1:
            words, verb = words[1:], words[1].upper()
        flags = [word for word in words[1:] if word.startswith("--")]
        given = [_filled(word, variables) for word in words[1:] if not word.startswith("--")]
        if verb in ("ARG", "ENV"):
            variables |= dict(word.split("=", 1) for word in given if "=" in word)
        elif verb == "FROM" and given:
            _refuse_image(given[0], name, stages, has_image)
            if len(given) > 2 and given[1].upper() == "AS":
                stages.add(given[2].lower())
        elif verb == "ADD":
            for source in given:
                if _REMOTE.match(source.lstrip("[\"', ")) or "$" in source:
                    raise ImageMissing(
                        f"{name} adds {source}, which the engine would fetch past --network none; "
                        "use --network bridge, or copy a file of the repository"
                    )
        for flag in flags:
            if flag.startswith("--from="):
                _refuse_image(_filled(flag[7:], variables), name, stages, has_image)


def _refuse_image(
    image: str, name: str, stages: set[str], has_image: Callable[[str], bool]
) -> None:
    if image.lower() in stages or image == "scratch" or image.isdecimal():
        return
    if "$" in image or not has_image(image):
        raise ImageMissing(
            f"{name} builds on {image}, which is not on this machine; docker pull it, or use "
            "--network bridge"
        )


def _instructions(text: str) -> list[list[str]]:
    """Return the words of each instruction, continued lines joined and comments left out."""
    mark = "`" if re.search(r"^#\s*escape\s*=\s*`", text, re.MULTILINE | re.IGNORECASE) else "\\"
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(re.escape(mark) + r"[ \t]*\n", " ", "\n".join(lines) + "\n")
    return [words for line in joined.splitlines() if (words := line.split())]


def _filled(word: str, variables: dict[str, str]) -> str:
    """Put the values of known variables into ``word``; what is left keeps its dollar."""
    for key, value in variables.items():
        word = word.replace(f"${{{key}}}", value)
        word = re.sub(rf"\${key}\b", lambda _, value=value: value, word)  # type: ignore[misc]
    return word.strip("\"'")
