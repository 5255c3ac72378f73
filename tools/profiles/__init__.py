"""Tool profiles: which tools a model sees, under which names and in which words."""
