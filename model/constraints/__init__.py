"""Rules that let a model write nothing but well-formed calls."""
