"""The shell tools, and the report on a command."""
