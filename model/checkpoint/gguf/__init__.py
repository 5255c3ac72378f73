"""Checkpoints in GGUF files: header, block types, names, tokenizer."""
