"""Drafts: tokens that are guessed and verified in one pass."""
