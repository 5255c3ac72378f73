"""Where commands run and files live: Docker, bubblewrap, or the local machine without isolation."""
