"""A seccomp filter for bubblewrap: no new user namespaces, kernel keyrings, or VM sockets.

In a user namespace of its own a process has every right over it: it could mount the control groups
and change those that its user owns. No network namespace holds AF_VSOCK: it reaches what listens on
this machine and on the one that runs it. io_uring opens sockets past any filter. Docker's default
filter (from 25 on) refuses the same calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_FLAGGED = {"x86_64": (56, 272), "aarch64": (220, 97)}  # clone, unshare
_SETNS = {"x86_64": 308, "aarch64": 268}
_KEYS = {"x86_64": (248, 249, 250), "aarch64": (217, 218, 219)}  # add_key, request_key, keyctl
# bpf, perf_event_open, userfaultfd: wide ways into the kernel that no build or test needs.
_KERNEL = {"x86_64": (321, 298, 323), "aarch64": (280, 241, 282)}
_SOCKET = {"x86_64": 41, "aarch64": 198}
_AF_VSOCK = 40
_IO_URING = (425, 426, 427)
_CLONE3 = 435
_CLONE_NEWUSER = 0x10000000
_X32 = 0x40000000
_KEYCTL_JOIN_SESSION_KEYRING = 1
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_EQUAL, _AT_LEAST = 0x15, 0x35
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM
_UNKNOWN = 0x00050000 | errno.ENOSYS  # libraries then use the older call


def build_filter(machine: str | None = None) -> bytes | None:
    """Return the filter as the kernel reads it, or None for a machine whose calls are not known."""
    machine = machine or os.uname().machine
    if machine not in _AUDIT_ARCH:
        return None
    # Each line is (code, jump if true, jump if false, value); a label names a line of the end.
    body: list[tuple[int, str, str, int]] = [
        (_LOAD, "", "", 4),
        (_EQUAL, "", "unknown", _AUDIT_ARCH[machine]),
        (_LOAD, "", "", 0),
    ]
    if machine == "x86_64":
        body.append((_AT_LEAST, "unknown", "", _X32))
    body += [(_EQUAL, "unknown", "", call) for call in (_CLONE3, *_IO_URING)]
    refused = (_SETNS[machine], *_KEYS[machine], *_KERNEL[machine])
    body += [(_EQUAL, "refuse", "", call) for call in refused]
    body.append((_EQUAL, "family", "", _SOCKET[machine]))
    body += [(_EQUAL, "flags", "", call) for call in _FLAGGED[machine]]
    end = [
        ("", (_RETURN, "", "", _ALLOW)),
        ("flags", (_LOAD, "", "", 16)),
        ("", (_AND, "", "", _CLONE_NEWUSER)),
        ("", (_EQUAL, "leave", "refuse", 0)),
        ("family", (_LOAD, "", "", 16)),
        ("", (_EQUAL, "refuse", "leave", _AF_VSOCK)),
        ("refuse", (_RETURN, "", "", _REFUSE)),
        ("unknown", (_RETURN, "", "", _UNKNOWN)),
        ("leave", (_RETURN, "", "", _ALLOW)),
    ]
    places = {name: len(body) + index for index, (name, _) in enumerate(end) if name}
    lines = body + [line for _, line in end]
    made = b""
    for at, (code, true, false, value) in enumerate(lines):
        jumps = [places[name] - at - 1 if name else 0 for name in (true, false)]
        made += struct.pack("<HBBI", code, *jumps, value)
    return made


def join_new_keyring() -> None:
    """Give this thread, and what it starts, an empty session keyring; never raises.

    The caller's may hold passwords and keys of the user's.
    """
    if (calls := _KEYS.get(os.uname().machine)) is not None:
        ctypes.CDLL(None).syscall(calls[2], _KEYCTL_JOIN_SESSION_KEYRING, None)
