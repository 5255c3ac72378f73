"""The network: Gated DeltaNet and attention layers, on CPU and GPU."""
