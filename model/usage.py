"""Counters of what a session has cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace


@dataclass(frozen=True)
class Usage:
    """The cost of a session so far. Counters only grow; ``context_tokens`` is the length now.

    ``reused_tokens`` adds up, for every ``extend``, the context that was there already.
    ``shared_tokens`` came with a state that another session had computed (a stored prefix, or the
    prompt of several attempts), ``compacted_tokens`` is context that was given up for a summary of
    it, and ``abandoned_tokens`` is context that was left behind by going back. ``forced_tokens``
    are those of the generated ones that were put there instead of sampled. ``drafted_tokens``
    were tried before they were sampled and ``accepted_tokens`` of them then sampled; those that the
    checkpoint's MTP layer guessed are also in ``mtp_drafted_tokens`` and ``mtp_accepted_tokens``.
    As long as nothing is computed again,
    prefilled + generated + shared == context + compacted + abandoned.
    """

    context_tokens: int = 0
    prefilled_tokens: int = 0
    generated_tokens: int = 0
    thinking_tokens: int = 0
    forced_tokens: int = 0
    reused_tokens: int = 0
    shared_tokens: int = 0
    compacted_tokens: int = 0
    abandoned_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    mtp_drafted_tokens: int = 0
    mtp_accepted_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    tool_s: float = 0.0
    wall_s: float = 0.0

    @property
    def repeated_tokens(self) -> int:
        """The number of tokens that ran through the network more than once."""
        paid = self.prefilled_tokens + self.generated_tokens + self.shared_tokens
        return paid - self.context_tokens - self.compacted_tokens - self.abandoned_tokens

    @property
    def drafts(self) -> str:
        """Tell how many tried tokens were right, by source: ``5 of 8 copied, 3 of 4 guessed``;
        empty if none were tried."""
        guessed = self.mtp_accepted_tokens, self.mtp_drafted_tokens
        copied = self.accepted_tokens - guessed[0], self.drafted_tokens - guessed[1]
        pairs = ((copied, "copied"), (guessed, "guessed"))
        told = [f"{right:,} of {tried:,} {name}" for (right, tried), name in pairs if tried]
        return ", ".join(told)

    def __add__(self, later: Usage) -> Usage:
        """Return the sum of all counters, with the context length of ``later``."""
        pairs = {f.name: getattr(self, f.name) + getattr(later, f.name) for f in fields(self)}
        return replace(Usage(**pairs), context_tokens=later.context_tokens)

    def __sub__(self, earlier: Usage) -> Usage:
        """Return what was counted since ``earlier``, with the context length of now."""
        pairs = {f.name: getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)}
        return replace(Usage(**pairs), context_tokens=self.context_tokens)

    def as_dict(self) -> dict[str, int | float]:
        """Return the counters by name, for JSON."""
        return asdict(self)
