"""The kinds of sandbox: Docker, bubblewrap, local."""
