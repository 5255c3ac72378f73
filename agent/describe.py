"""What a checkpoint is, in figures."""

from __future__ import annotations

from typing import Any

from agent.solve import load_model
from model import hub
from model.weights import parameter_count


def describe_model(name: str) -> dict[str, Any]:
    """Load the checkpoint called ``name`` and describe it. Raises ``CheckpointError``."""
    path = hub.resolve(name)
    loaded = load_model(name)
    config, engine = loaded.engine.config, loaded.engine
    linear = config.layer_types.count("linear_attention")
    return {
        "name": name,
        "path": str(path),
        "size_bytes": sum(file.stat().st_size for file in path.iterdir() if file.is_file()),
        "fingerprint": engine.fingerprint,
        "parameters": parameter_count(config),
        "layers": config.num_hidden_layers,
        "deltanet_layers": linear,
        "attention_layers": config.num_hidden_layers - linear,
        "mtp_layers": config.mtp_num_hidden_layers,
        "hidden_size": config.hidden_size,
        "vocabulary": config.vocab_size,
        "context_length": engine.context_length,
        "dtype": str(config.dtype).removeprefix("torch."),
        "temperature": engine.generation.temperature,
        "top_p": engine.generation.top_p,
        "top_k": engine.generation.top_k,
    }
