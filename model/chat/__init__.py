"""Text and ids: chat template, tokenizer, parser of tool calls."""
