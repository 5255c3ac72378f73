"""The private copy of the repository: diff, checkpoint, rollback."""
