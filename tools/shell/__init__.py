"""The shell tools and what they report."""
