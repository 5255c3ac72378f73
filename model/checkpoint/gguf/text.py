"""The tokenizer and the chat template of a GGUF file, as the files that other checkpoints have.

They are made once and kept in the user's cache: ``tokenizer.json``, ``chat_template.jinja`` and a
``config.json`` with the id that ends a text.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.checkpoint.gguf.header import GgufFile, open_files
from model.checkpoint.gguf.metadata import is_gguf
from model.checkpoint.quantize import cache_dir
from model.errors import CheckpointError

_FORMAT = "1"
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_SPLITS = {
    "qwen35": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
        r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
"""How each tokenizer of the family cuts a text before it joins bytes."""
TEMPLATES = {
    "a4aee8afcf2e0711942cf848899be66016f8d14a889ff9ede07bca099c28f715": "Qwen3.5 (thinking)",
    "273d8e0e683b885071fb17e08d71e5f2a5ddfb5309756181681de4f5a1822d80": "Qwen3.5 (small)",
    "e84f32a23fdda27689f868aa4a1a5621f41133e51a48d7f3efcbea2839574259": "Qwen3.6",
    "c3cf9e34abf4f9e36c2d72165aa9c132d3e2a725b6c2586aaa3a8af9d7a81041": "Qwen3.8",
}
"""The official chat templates of the family by their SHA-256."""


def text_folder(path: Path) -> Path:
    """Return the folder with a checkpoint's tokenizer and chat template.

    For a folder that is the folder itself; for a GGUF file one in the cache, made if need be.
    Raises ``CheckpointError``.
    """
    if not is_gguf(path):
        return path
    found = path.stat()
    key = repr((_FORMAT, str(path.resolve()), found.st_size, found.st_mtime_ns))
    folder = cache_dir().parent / "gguf" / hashlib.sha256(key.encode()).hexdigest()[:16]
    if (folder / "tokenizer.json").is_file():
        return folder
    made = text_files(open_files(path)[0])
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = Path(tempfile.mkdtemp(prefix="draft-", dir=folder.parent))
    try:
        for name, text in made.items():
            (draft / name).write_text(text, encoding="utf-8")
        draft.replace(folder)
    except OSError:
        if not (folder / "tokenizer.json").is_file():  # another process may have been first
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def text_files(file: GgufFile) -> dict[str, str]:
    """Return the contents of the text files that a GGUF file's keys make.

    Raises ``CheckpointError`` if the tokenizer is not of this family, or there is no template.
    """
    keys = file.metadata
    template = keys.get("tokenizer.chat_template")
    if not isinstance(template, str):
        raise CheckpointError(f"{file.path} has no chat template; use a file of a chat model")
    config = {"eos_token_id": keys.get("tokenizer.ggml.eos_token_id")}
    return {
        "config.json": json.dumps({k: v for k, v in config.items() if isinstance(v, int)}),
        "chat_template.jinja": template,
        "tokenizer.json": json.dumps(_tokenizer(file.path, keys), ensure_ascii=False),
    }


def template_name(folder: Path) -> str:
    """Name the official template that a folder has, or say that it is another one."""
    path = folder / "chat_template.jinja"
    if not path.is_file():
        return "in tokenizer_config.json"
    return TEMPLATES.get(hashlib.sha256(path.read_bytes()).hexdigest(), "not an official one")


def _tokenizer(path: Path, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tokenizer in the form of ``tokenizer.json``."""
    model, cut = keys.get("tokenizer.ggml.model"), keys.get("tokenizer.ggml.pre")
    if model != "gpt2" or cut not in _SPLITS:
        raise CheckpointError(
            f"{path} has the tokenizer {str(model)[:40]}/{str(cut)[:40]}, not one of this family"
            f" (gpt2/{'|'.join(_SPLITS)}); use another file of the model"
        )
    tokens, kinds = keys.get("tokenizer.ggml.tokens"), keys.get("tokenizer.ggml.token_type")
    merges = keys.get("tokenizer.ggml.merges")
    if not (isinstance(tokens, list) and isinstance(merges, list) and isinstance(kinds, list)):
        raise CheckpointError(f"{path} lacks its tokens, their types or merges; fetch it again")
    if len(tokens) != len(kinds) or not all(isinstance(m, str) for m in (*tokens, *merges)):
        raise CheckpointError(f"{path} has {len(tokens)} tokens and {len(kinds)} types")
    vocabulary = {
        t: i for i, (t, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind == _NORMAL
    }
    added = _added(path, tokens, kinds)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": _SPLITS[cut]},
                    "behavior": "Isolated",
                    "invert": False,
                },
                _byte_level(False),
            ],
        },
        "post_processor": None,
        "decoder": _byte_level(True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def _byte_level(regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": regex,
    }


def _added(path: Path, tokens: list[str], kinds: list[int]) -> list[dict[str, Any]]:
    """Return the tokens that no merge makes. Raises ``CheckpointError`` if their ids are odd."""
    added = [
        {
            "id": number,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == _CONTROL,
        }
        for number, (text, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    first = kinds.count(_NORMAL)
    in_order = [entry["id"] for entry in added] == list(range(first, first + len(added)))
    if not in_order or not set(kinds) <= {_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED}:
        raise CheckpointError(
            f"{path} numbers its tokens as no tokenizer of this family does; use another file"
        )
    return added
