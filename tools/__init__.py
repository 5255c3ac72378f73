"""The tools that the model may call: one file a tool, a schema and a function over a sandbox."""
