"""A shell that stays open, its output and its background processes."""
