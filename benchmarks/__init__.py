"""Measurements of the engine, the tools and the agent: one module a question."""
