"""Estimate how many tokens a text has, where no tokenizer is at hand."""

from __future__ import annotations


def estimate_tokens(text: str) -> int:
    """Return a third of the bytes: more than byte-pair tokenizers make of code, so budgets hold."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 3)
