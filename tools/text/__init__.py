"""Text files, matching, and cutting."""
