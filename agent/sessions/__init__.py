"""Everything kept on disk: saved sessions, their records, model states, prefix cache."""
