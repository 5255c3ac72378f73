"""The environment of commands in a sandbox: nothing of the user's own gets in."""

from __future__ import annotations


def sandbox_environment(home: str) -> dict[str, str]:
    """Return the variables every sandbox sets. ``PATH`` is each sandbox's own affair.

    Pagers would wait for a key. Without bytecode files a test run right after an edit cannot pick
    up the code from before it (they tell versions apart by second and size).
    """
    return {
        "HOME": home,
        "USER": "agent",
        "LOGNAME": "agent",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PAGER": "cat",
        "GIT_PAGER": "cat",
        "GIT_TERMINAL_PROMPT": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
