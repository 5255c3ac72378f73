"""Measuring the agent: task suites, runs, grading, and the training of the embedded model."""
