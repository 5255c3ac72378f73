"""Checkpoints: configuration, weights in every stored form, and where they are found."""
