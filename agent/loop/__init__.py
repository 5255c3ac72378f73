"""The agent loop: read, speak, act, keep; its limits and its prompts."""
