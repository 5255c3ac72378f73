"""Sandboxes for commands and files: Docker, bubblewrap, or the local machine without isolation."""
