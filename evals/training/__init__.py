"""One-line-bug repair tasks: how they are made, how the embedded model is trained on them."""
