"""Patches as models write them: the envelope format and unified diffs, read and fitted to files."""
