"""The open session and its short callers: solve, resume, attempts."""
