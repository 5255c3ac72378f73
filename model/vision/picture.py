"""Pictures from outside, judged before they are decoded and turned into plain RGB.

A file is what its first bytes say, whatever its name ends with. Only PNG, JPEG, GIF and WebP are
decoded, by Pillow, and only if their header promises few enough pixels.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import PictureError

if TYPE_CHECKING:
    import torch
    from PIL import Image

MOST_BYTES = 32 << 20
"""The largest file that is read as a picture."""
MOST_PIXELS = 1 << 26
"""The most pixels that are decoded: 8,192 × 8,192, which takes 192 MiB."""

FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
ENDINGS = {"PNG": "png", "JPEG": "jpg", "GIF": "gif", "WEBP": "webp"}
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
)
_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]+(?:;[a-z0-9=.-]+)*;base64,", re.IGNORECASE)
_SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)


@dataclass(frozen=True)
class Picture:
    """One picture: its file, as bytes or where it lies, and what it held when it was read.

    ``width`` and ``height`` are those of the upright picture. ``digest`` is the SHA-256 of its size
    and its RGB values, in hexadecimal: equal pixels have equal digests, whatever file they come
    from. ``note`` says what was left out, such as the later frames of an animation.
    """

    source: bytes | Path = field(repr=False)
    format: str
    width: int
    height: int
    digest: str
    name: str = "picture"
    note: str = ""

    @property
    def data(self) -> bytes:
        """The file's bytes. Raises ``PictureError`` if they cannot be read any more."""
        if isinstance(self.source, bytes):
            return self.source
        try:
            with self.source.open("rb") as file:
                return file.read(MOST_BYTES)
        except OSError as error:
            raise PictureError(f"{self.source} cannot be read: {error.strerror}") from error

    @property
    def ending(self) -> str:
        """The ending of a file with these bytes."""
        return ENDINGS[self.format]

    @property
    def media_type(self) -> str:
        """The media type, such as ``image/png``."""
        return f"image/{self.format.lower()}"

    @property
    def data_url(self) -> str:
        """The file as a data URL."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"

    @cached_property
    def words(self) -> str:
        """Size, format and name in words, for a reader without eyes."""
        kind = "WebP" if self.format == "WEBP" else self.format
        return f"{kind} picture {self.name}, {self.width:,} × {self.height:,} pixels"

    def pixels(self) -> torch.Tensor:
        """Decode the pixels: uint8 ``[3, height, width]``.

        Raises ``PictureError``, also if the file is not any more what it was.
        """
        import numpy as np
        import torch

        with _open(self.data, self.name) as image:
            upright = _upright(image, self.name)
        if _digest(upright) != self.digest:
            raise PictureError(f"{self.name} was changed since it was read; show it again")
        array = np.asarray(upright)
        return torch.from_numpy(array.copy()).permute(2, 0, 1).contiguous()


def read_picture(data: bytes, name: str = "picture") -> Picture:
    """Judge and decode ``data``. Raises ``PictureError`` with one line if it is no picture to see.

    ``name`` is shown to people and to the model; what a terminal could take for a command in it is
    replaced.
    """
    name = _shown(name)
    if len(data) > MOST_BYTES:
        raise PictureError(
            f"{name} is larger than {MOST_BYTES >> 20} MiB; make the picture smaller"
        )
    with _open(data, name) as image:
        found = str(image.format)
        frames = int(getattr(image, "n_frames", 1))
        upright = _upright(image, name)
        width, height = upright.size
        digest = _digest(upright)
    note = f"the first of {frames:,} frames" if frames > 1 else ""
    return Picture(data, found, width, height, digest, name, note)


def read_picture_file(path: Path) -> Picture:
    """Read a picture from the file at ``path``. Raises ``PictureError``."""
    try:
        if not path.is_file():
            raise PictureError(f"{_shown(str(path))} is no file; give the path of a picture")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PictureError(f"{_shown(str(path))} cannot be read: {reason}") from error
    return read_picture(data, path.name)


def read_data_url(url: str, name: str = "picture") -> Picture:
    """Read a picture from a data URL (RFC 2397) in base64. Raises ``PictureError``."""
    start = _DATA_URL.match(url[:200])
    if start is None:
        raise PictureError("the picture's address is no data:image/…;base64, URL")
    return read_base64(url[start.end() :], name)


def read_base64(text: str, name: str = "picture") -> Picture:
    """Read a picture from base64. Raises ``PictureError``."""
    if len(text) > MOST_BYTES * 4 // 3 + 4:
        raise PictureError(
            f"{_shown(name)} is larger than {MOST_BYTES >> 20} MiB; make the picture smaller"
        )
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PictureError(f"{_shown(name)} is not valid base64") from error
    return read_picture(data, name)


def format_of(data: bytes) -> str | None:
    """Return the format that the first bytes of a file announce; None if it is no picture."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for start, name in _SIGNATURES if data.startswith(start)), None)


def _open(data: bytes, name: str) -> Image.Image:
    """Read the header alone, and refuse by it what must not be decoded."""
    import warnings

    from PIL import Image

    found = format_of(data)
    if found is None:
        if _SVG.search(data[:4096]):
            raise PictureError(
                f"{name} is an SVG, which is a drawing and has no pixels; make a PNG of it"
            )
        raise PictureError(f"{name} is no picture; PNG, JPEG, GIF and WebP can be seen")
    try:
        with warnings.catch_warnings():
            # Pillow's own limits are above ours, which says it in our words.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=[found])
    except Image.DecompressionBombError as error:
        raise PictureError(_too_large(name)) from error
    except Exception as error:  # whatever a damaged file makes the library raise
        raise PictureError(f"{name} is a damaged {found} file; it cannot be decoded") from error
    width, height = image.size
    if width * height > MOST_PIXELS:
        image.close()
        raise PictureError(f"{_too_large(name)}: it has {width:,} × {height:,}")
    return image


def _digest(upright: Image.Image) -> str:
    width, height = upright.size
    return hashlib.sha256(f"{width} {height} ".encode() + upright.tobytes()).hexdigest()


def _too_large(name: str) -> str:
    return f"{name} has more than {MOST_PIXELS >> 20} million pixels; make the picture smaller"


def _upright(image: Image.Image, name: str) -> Image.Image:
    """Decode the first frame, turn it as its EXIF data says, and put it on white in RGB."""
    from PIL import Image, ImageOps

    try:
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            # 16 bits of grey: the upper eight, where Pillow would cut all above 255 off.
            image = image.point(lambda value: value / 256).convert("L")
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            clear = image.convert("RGBA")
            white = Image.new("RGBA", clear.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, clear)
        return image.convert("RGB")
    except Exception as error:  # whatever a damaged file makes the library raise
        raise PictureError(f"{name} is truncated or damaged; it cannot be decoded") from error


def _shown(name: str) -> str:
    """Return ``name`` in at most 120 printable characters of one line."""
    clean = "".join(c if c.isprintable() else "\ufffd" for c in name)
    return clean if len(clean) <= 120 else clean[:119] + "…"
