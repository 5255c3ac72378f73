"""The model's eyes: pictures read safely, prepared, encoded once, and named by their tokens."""
