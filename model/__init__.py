"""Tokens in, tokens out: configuration, weights, chat format, sessions. Knows nothing of tools."""
