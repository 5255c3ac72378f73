"""Paths and files as tools see them."""
