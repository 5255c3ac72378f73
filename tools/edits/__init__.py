"""Patches, previews and the saving of edits."""
