"""Text to token ids and back, over a checkpoint's ``tokenizer.json``.

Two encoders share one model. ``encode_markup`` knows the added tokens (``<|im_end|>``,
``<think>``, ``<tool_call>`` ...); ``encode_text`` knows none of them, so text from outside can
spell any of them and still become ordinary pieces. The tokenizers library can only switch off
tokens flagged "special", which ``<think>`` and ``<tool_call>`` are not, hence the second encoder.

Decoding goes through bytes: byte-level BPE (the only kind this family uses) maps every piece to a
byte string, and an incremental UTF-8 decoder joins them.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Encoder

from model.checkpoint.files import require_plain
from model.errors import CheckpointError

MOST_BYTES = 256 << 20
"""The largest tokenizer.json; the family's has 20 MB."""
_NORMALIZERS = frozenset({"NFC", "NFD", "NFKC", "NFKD"})
_REPEATED_GROUP = re.compile(r"(?<!\\\\)\)[+*{]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Decoder:
    """Ids to text, one id at a time, never splitting a character.

    A piece that ends inside a UTF-8 character is held back until the rest arrives. Bytes that are
    no UTF-8 become U+FFFD. The pieces put together equal ``Tokenizer.decode`` of all ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Return the text that ``token_id`` completes; empty if it ends inside a character."""
        return self._utf8.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """Return the text held back (U+FFFD for an incomplete character), and start afresh."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest


class Tokenizer:
    """The tokenizer of one checkpoint. Immutable; may be shared by any number of sessions."""

    def __init__(self, encoder: Encoder) -> None:
        """Take a ``tokenizers.Tokenizer``; ``CheckpointError`` if it is no byte-level BPE."""
        if not _is_byte_level(encoder):
            raise CheckpointError(
                "the tokenizer is not byte-level BPE; only Qwen3.5-style tokenizers are supported"
            )
        _require_bounded(encoder)
        encoder.no_truncation()
        encoder.no_padding()
        self._markup = encoder
        self._plain = Encoder(encoder.model)
        if encoder.normalizer is not None:
            self._plain.normalizer = encoder.normalizer
        if encoder.pre_tokenizer is not None:
            self._plain.pre_tokenizer = encoder.pre_tokenizer
        added = encoder.get_added_tokens_decoder()
        self._added = {token.content: token_id for token_id, token in added.items()}
        self._added_bytes = {token_id: token.content.encode() for token_id, token in added.items()}
        self._bytes_of = {char: byte for byte, char in _byte_alphabet().items()}
        # An empty alternation would match everywhere; without added tokens nothing may match.
        names = sorted(self._added, key=len, reverse=True)
        self._added_pattern = re.compile("|".join(map(re.escape, names)) if names else r"(?!)")
        for text, token_id in self._added.items():
            if token_id in self._plain.encode(text, add_special_tokens=False).ids:
                raise CheckpointError(
                    f"the tokenizer builds {text!r} from plain text, so outside text could forge it"
                )

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Read ``directory/tokenizer.json``; ``CheckpointError`` if it is missing or broken."""
        path = directory / "tokenizer.json"
        if not path.exists():
            raise CheckpointError(
                f"{directory} has no tokenizer.json; fetch the checkpoint again with all its files"
            )
        if require_plain(path) > MOST_BYTES:
            raise CheckpointError(f"{path} is larger than {MOST_BYTES >> 20} MiB; fetch it again")
        try:
            return cls(Encoder.from_file(str(path)))
        except (CheckpointError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # bare Exception for every kind of fault, or a Rust panic
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"{path} cannot be read as a tokenizer ({reason}); fetch it again"
            ) from error

    @property
    def vocab_size(self) -> int:
        """One more than the highest id in use; the model's padded vocabulary may be larger."""
        return max(self._plain.get_vocab_size(), max(self._added_bytes, default=-1) + 1)

    @property
    def fingerprint(self) -> str:
        """Equal for two tokenizers that give every text the same ids. Hashes the whole of it."""
        return hashlib.sha256(self._markup.to_str().encode()).hexdigest()[:32]

    @property
    def added_pattern(self) -> re.Pattern[str]:
        """Matches the text of any added token (longest first)."""
        return self._added_pattern

    def special(self, token: str) -> int | None:
        """Return the id of an added token by its exact text, or None."""
        return self._added.get(token)

    def encode_text(self, text: str) -> list[int]:
        """Encode text from outside: no added token is recognised, whatever the text says."""
        return self._plain.encode(_valid(text), add_special_tokens=False).ids

    def encode_markup(self, text: str) -> list[int]:
        """Encode trusted text (template markup, scripted turns): added tokens become their ids."""
        return self._markup.encode(_valid(text), add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ``ids``, added tokens included. Ids outside the vocabulary are nothing."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def stream(self) -> Decoder:
        """Make a fresh incremental decoder."""
        return Decoder(self)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that one id stands for; empty for an id outside the vocabulary."""
        added = self._added_bytes.get(token_id)
        if added is not None:
            return added
        piece = self._plain.id_to_token(token_id) if token_id >= 0 else None
        if piece is None:
            return b""
        table = self._bytes_of
        return bytes(table[char] for char in piece if char in table)


def _valid(text: str) -> str:
    """Replace the lone surrogates in ``text``: the library takes only what UTF-8 can carry."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _require_bounded(encoder: Encoder) -> None:
    """Refuse what could make encoding take unbounded time or memory. Raises ``CheckpointError``."""
    kinds = list(_parts(encoder.normalizer, "normalizers"))
    strange = [kind["type"] for kind in kinds if kind.get("type") not in _NORMALIZERS]
    if strange or len(kinds) > 4:
        raise CheckpointError(
            f"the tokenizer changes text by {', '.join(map(str, strange)) or 'too many steps'};"
            " only Unicode normal forms are supported"
        )
    for part in _parts(encoder.pre_tokenizer, "pretokenizers"):
        pattern = part.get("pattern")
        if isinstance(pattern, dict) and _REPEATED_GROUP.search(str(pattern.get("Regex", ""))):
            raise CheckpointError(
                "the tokenizer splits text by a pattern with a repeated group, which may take"
                " for ever; only Qwen3.5-style tokenizers are supported"
            )


def _parts(component: Any, name: str) -> Iterator[dict[str, Any]]:
    """Yield the settings of a component of the library, or of each part of a sequence."""
    if component is None:
        return
    found = json.loads(component.__getstate__())
    yield from found[name] if found.get("type") == "Sequence" else [found]


def _is_byte_level(encoder: Encoder) -> bool:
    decoder = json.loads(encoder.decoder.__getstate__()) if encoder.decoder is not None else {}
    kinds = [decoder, *decoder.get("decoders", [])]
    return any(kind.get("type") == "ByteLevel" for kind in kinds)


def _byte_alphabet() -> dict[int, str]:
    """Return the printable character that byte-level BPE writes for each byte (GPT-2's convention).

    Printable Latin-1 bytes stand for themselves; the others take code points from 256 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in alphabet)
    alphabet.update({byte: chr(256 + index) for index, byte in enumerate(others)})
    return alphabet
