"""Definitions and references of a repository: found with tree-sitter, kept under content hashes."""
