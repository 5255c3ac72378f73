"""Make a complete checkpoint of the real architecture with few, random, seeded weights.

    python tests/support/make_tiny_checkpoint.py DIRECTORY

The byte-level tokenizer (learned from this project's own tools) and the Qwen3.6 chat template are
real, so everything that loads and runs a checkpoint can be tried. What it says is noise.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from model.checkpoint.config import ModelConfig
from model.checkpoint.weights import tensor_shapes

TESTS = Path(__file__).resolve().parent.parent
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKS = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)


def make(directory: Path) -> Path:
    """Write the checkpoint's files into ``directory`` and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "config.json").write_text(json.dumps(_config(tokenizer), indent=2))
    (directory / "generation_config.json").write_text('{"temperature": 1.0, "top_k": 0}')
    template = TESTS / "golden" / "templates" / "qwen3_6.jinja"
    shutil.copyfile(template, directory / "chat_template.jinja")
    random = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in tensor_shapes(ModelConfig.load(directory)).items():
        prefix = "" if name.startswith(("mtp.", "lm_head.")) else "model."
        tensors[prefix + name] = torch.randn(shape, generator=random) * 0.1
    save_file(tensors, directory / "model.safetensors")
    return directory


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    sources = sorted((TESTS.parent / "tools").glob("*.py"))
    tokenizer.train_from_iterator([path.read_text("utf-8") for path in sources], trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken(text, special=False) for text in MARKS])
    return tokenizer


def _config(tokenizer: Tokenizer) -> dict[str, object]:
    return {
        "architectures": ["Qwen3_5ForCausalLM"],
        "model_type": "qwen3_5_text",
        "vocab_size": 1024,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "full_attention_interval": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_conv_kernel_dim": 4,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.25,
            "mrope_section": [1, 1, 0],
        },
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "mtp_num_hidden_layers": 1,
        "max_position_embeddings": 8192,
        "eos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "dtype": "float32",
    }


if __name__ == "__main__":
    make(Path(sys.argv[1]))
