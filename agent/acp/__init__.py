"""``agent acp``: the Agent Client Protocol over stdio, for editors.

``stdio``       frames in and out; stdout carries them and nothing else
``server``      the protocol's methods, version 1
``session``     one open session of an editor: its thread, its turns, its options
``outbox``      updates on their way to the editor, in order
``updates``     what happens in a run, as session updates; ``calls`` does it for one tool call
``replay``      the same for a saved session, from its record
``permission``  asks the person
``files``       the user's files through the editor
``content``     a prompt's blocks as the text that the model reads
``slash``       the commands a person types: /rewind, /fork, /compact, /thinking, /check
``options``     modes and configuration options

The package of the protocol's Python SDK is called ``acp``; its pydantic models are version 1's. A
version 2 needs its own ``server``, ``updates`` and ``replay``; the others speak of sessions only.
"""
