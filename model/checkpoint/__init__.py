"""Checkpoints: their configuration, their weights in every stored form, and where they are found."""
