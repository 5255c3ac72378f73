"""What the model may call: one file a tool, each a schema plus a function over a sandbox."""
