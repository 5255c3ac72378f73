"""How edits are saved and shown."""
