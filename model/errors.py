"""Everything that can go wrong with a model, as a tree.

ModelError
├── CheckpointError      files missing, truncated, of another shape or another architecture
│   └── ModelNotFound    no such directory, or a hub name that cannot be had (offline)
├── ContextFull          the session has reached the model's context length
├── MemoryFull           the state does not fit the memory it may have, or the disk behind it
├── PictureError         a file is no picture to see, or the model has no eyes
├── SessionClosed        the session was closed, or its snapshot belongs to another session
└── StateError           a saved state is corrupt, truncated, or belongs to other weights

Each message is one line that says what is wrong and what to do.
"""

from __future__ import annotations


class ModelError(Exception):
    """Base of every error the model package raises on purpose."""


class CheckpointError(ModelError):
    """A checkpoint cannot be used: a file is missing, truncated, mis-shaped, or unsupported."""


class ModelNotFound(CheckpointError):
    """No checkpoint under that name: no directory, not embedded, not to be had from the hub."""


class ContextFull(ModelError):
    """The tokens to add do not fit the context length. The session is unchanged."""


class MemoryFull(ModelError):
    """There is no room for more state, and nothing left to park. The session is unchanged."""


class PictureError(ModelError):
    """A picture cannot be decoded, is too large, or the model has no eyes to see it."""


class SessionClosed(ModelError):
    """The session was closed, or a snapshot of another session was handed to it."""


class StateError(ModelError):
    """A saved session state cannot be read or belongs to other weights."""
