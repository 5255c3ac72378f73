"""The words for how much a model should think, mapped to those that a chat template knows.

Templates that know ``reasoning_effort`` differ in its words, and the one of Qwen3.8 refuses every
word but its own three. A template is therefore asked, with one probe a word, what it takes.
"""

from __future__ import annotations

from collections.abc import Callable

LEVELS = ("low", "medium", "high", "xhigh")
"""The efforts above no thinking at all, from little to much."""
_SPELLINGS = {
    "none": ("off", "no", "disabled", "minimal"),
    "low": ("light", "short"),
    "medium": ("mid", "normal", "moderate"),
    "high": ("hard",),
    "xhigh": ("x-high", "extra-high", "extra_high", "max", "maximum", "highest", "ultra"),
    "auto": ("default", "on"),
}


def read_effort(word: str) -> str | None:
    """Return the level that ``word`` means: one of ``LEVELS``, ``none`` or ``auto``.

    None for a word that nobody uses; it counts as ``auto``.
    """
    plain = plain_word(word)
    for level, others in _SPELLINGS.items():
        if plain == level or plain in others:
            return level
    return None


def plain_word(word: str) -> str:
    """Return ``word`` in small letters, without what no terminal should show, and short."""
    return "".join(c for c in word.strip().lower() if c.isprintable())[:40] or "auto"


def unknown_effort(word: str) -> str | None:
    """Return a line that says that no effort is called ``word``; None if one is."""
    if read_effort(word) is not None:
        return None
    known = ", ".join(_SPELLINGS)
    return f"no effort is called {word!r}: the template's own counts; there are {known}"


def means_none(word: str) -> bool:
    """Return whether ``word`` asks for no thinking at all."""
    return read_effort(word) == "none"


def fit_effort(level: str, probe: Callable[[str], str | None]) -> str | None:
    """Return the template's word for ``level`` of ``LEVELS``; None if it knows no efforts.

    ``probe`` renders a short conversation at a word, or returns None where the template refuses the
    word. A level that the template lacks becomes the next higher one, else the highest it has.
    """
    texts = {word: probe(word) for word in LEVELS}
    if len(set(texts.values())) == 1:
        return None
    above = LEVELS[LEVELS.index(level) :]
    below = LEVELS[: LEVELS.index(level)]
    return next(word for word in (*above, *reversed(below)) if texts[word] is not None)
