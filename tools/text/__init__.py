"""Text files, matching, and cutting to a token budget."""
