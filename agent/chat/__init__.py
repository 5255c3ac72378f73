"""The terminal front end: a chat over an open session.

``app`` is the screen and its keys, ``worker`` the thread that owns the session, ``transcript``
makes lines of events, ``commands`` are the slash commands, ``completion`` and ``paste`` help
typing. Nothing here imports torch before the prompt stands.
"""
