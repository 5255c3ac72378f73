"""The one cancellation token: how one thread tells others to give up what they are doing."""

from __future__ import annotations

import time


class Stop:
    """A token that is set once what looks at it is to end.

    It is set by ``cancel``, by its deadline, and by any token that it joins. To set one is a single
    assignment, so a signal handler and any thread may do it.
    """

    def __init__(self, *joined: Stop, after_s: float | None = None) -> None:
        """Set it ``after_s`` seconds from now; None never does."""
        self._joined = joined
        self._reason: str | None = None
        self._deadline: float | None = None
        self.expire_in(after_s)

    def cancel(self, reason: str = "") -> None:
        """Set it. ``reason`` says on whose behalf; "" is the user's."""
        if self._reason is None:
            self._reason = reason

    def clear(self) -> None:
        """Take ``cancel`` back. The deadline and the joined tokens stay as they are."""
        self._reason = None

    def expire_in(self, seconds: float | None) -> None:
        """Move the deadline to ``seconds`` from now; None removes it."""
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def is_set(self) -> bool:
        """Tell whether to stop."""
        return self._reason is not None or self.expired or any(s.is_set() for s in self._joined)

    @property
    def expired(self) -> bool:
        """True once its own deadline has passed."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def reason(self) -> str:
        """The reason that ``cancel`` was given, here or at a joined token; else ""."""
        if self._reason is not None:
            return self._reason
        return next((stop.reason for stop in self._joined if stop.is_set()), "")

    def joined(self, *others: Stop, after_s: float | None = None) -> Stop:
        """Return a token that is set with this one, with any of ``others``, or after its time."""
        return Stop(self, *others, after_s=after_s)
