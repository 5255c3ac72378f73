"""The settings of a run: one table of options, and the sources that their values come from."""
