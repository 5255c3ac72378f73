"""What a checkpoint says and holds: configuration, weights, hub."""
