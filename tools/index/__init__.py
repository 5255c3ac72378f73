"""The index of a repository's definitions and mentions, made with tree-sitter."""
