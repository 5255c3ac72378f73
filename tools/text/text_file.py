"""Turn bytes into text and back without loss: encodings, byte-order marks, line endings."""

from __future__ import annotations

import codecs
from contextlib import suppress
from dataclasses import dataclass

_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
MARK = "\ufeff"
_C1_CONTROLS = bytes(range(0x80, 0xA0))
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG image"),
    (b"\xff\xd8\xff", "JPEG image"),
    (b"GIF8", "GIF image"),
    (b"%PDF-", "PDF document"),
    (b"PK\x03\x04", "ZIP archive"),
    (b"\x1f\x8b", "gzip archive"),
    (b"BZh", "bzip2 archive"),
    (b"\xfd7zXZ\x00", "xz archive"),
    (b"\x28\xb5\x2f\xfd", "zstd archive"),
    (b"\x7fELF", "ELF program or library"),
    (b"MZ", "Windows program or library"),
    (b"\x00asm", "WebAssembly module"),
    (b"SQLite format 3\x00", "SQLite database"),
    (b"\x93NUMPY", "NumPy array"),
)
_PLAIN_CONTROLS = frozenset(b"\t\n\r\f\v\b\x1b")
_SNIFFED_BYTES = 8192


@dataclass(frozen=True)
class TextFile:
    """A text file taken apart: ``encode(text)`` gives back the very bytes it was made from.

    ``text`` keeps the file's own line endings. ``bom`` is the byte-order mark (may be empty).
    """

    text: str
    encoding: str
    bom: bytes

    @property
    def newline(self) -> str:
        """The line ending that most lines have; a line feed if none has any."""
        return find_dominant_newline(self.text) or "\n"

    def encode(self, text: str) -> bytes:
        """Encode ``text`` as this file is encoded. Raises ``UnicodeEncodeError``.

        Where the file has a byte-order mark, one in ``text`` is that one and comes no second time.
        """
        return self.bom + (text.lstrip(MARK) if self.bom else text).encode(self.encoding)


def find_dominant_newline(text: str) -> str | None:
    """Return CRLF or LF, whichever ends more lines (LF on a tie); None without a line end."""
    crlf = text.count("\r\n")
    lf = text.count("\n") - crlf
    if crlf == lf == 0:
        return None
    return "\r\n" if crlf > lf else "\n"


def decode(data: bytes) -> TextFile | None:
    """Read ``data`` as text, or None if it is binary.

    A byte-order mark decides; else UTF-8; else Windows-1252 if there are bytes that Latin-1 has as
    controls (80 to 9F); else Latin-1, which every byte string fits, unless null bytes or many
    control characters say that this is no text at all.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            try:
                text = data[len(bom) :].decode(encoding)
            except UnicodeDecodeError:
                continue
            if "\0" in text:
                return None
            marks = len(text) - len(text.lstrip(MARK))
            return TextFile(text[marks:], encoding, bom * (1 + marks))
    if b"\0" in data:
        return None
    try:
        return TextFile(data.decode("utf-8"), "utf-8", b"")
    except UnicodeDecodeError:
        pass
    if is_binary(data[:_SNIFFED_BYTES]):
        return None
    if data.translate(None, _C1_CONTROLS) != data:
        with suppress(UnicodeDecodeError):
            return TextFile(data.decode("windows-1252"), "windows-1252", b"")
    return TextFile(data.decode("latin-1"), "latin-1", b"")


def is_binary(head: bytes) -> bool:
    """Return whether the first bytes of a file look like something other than text."""
    if any(head.startswith(bom) for bom, _ in _BOMS):
        return False
    if b"\0" in head or any(head.startswith(magic) for magic, _ in _MAGIC if magic[0] > 126):
        return True
    controls = sum(byte < 32 and byte not in _PLAIN_CONTROLS for byte in head)
    return controls * 20 > len(head)


def describe_binary(head: bytes) -> str:
    """Name the kind of binary file that begins like this."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[257:262] == b"ustar":
        return "tar archive"
    return "unknown type"


def is_picture(head: bytes) -> bool:
    """Return whether a file begins like a PNG, JPEG, GIF or WebP."""
    return head.startswith(_PICTURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def count_lines(text: str) -> int:
    """Count lines; a last line without a line feed counts too."""
    return text.count("\n") + (1 if text and not text.endswith("\n") else 0)


def format_size(size: int) -> str:
    """Format ``size`` bytes for a reader: ``312 bytes``, ``4.2 KB``, ``100.0 MB``."""
    if size < 1024:
        return "1 byte" if size == 1 else f"{size} bytes"
    value = float(size)
    for unit in ("KB", "MB", "GB"):
        value /= 1024
        if value < 1024 or unit == "GB":
            break
    return f"{value:.1f} {unit}"
