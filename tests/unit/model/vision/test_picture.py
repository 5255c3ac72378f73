"""Pictures are read, and anything else is refused with one line."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.errors import ModelError, PictureError
from model.vision.picture import Picture, read_data_url, read_picture, read_picture_file
from tests.support.sighted import png


def saved(image: Any, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixel(picture: Picture, row: int = 0, column: int = 0) -> tuple[int, ...]:
    return tuple(picture.pixels()[:, row, column].tolist())


RED = Image.new("RGB", (8, 6), (255, 0, 0))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_four_formats(kind: str) -> None:
    picture = read_picture(saved(RED, kind), f"red.{kind.lower()}")
    assert (picture.format, picture.width, picture.height) == (kind, 8, 6)
    assert pixel(picture)[0] > 240
    assert "8 × 6 pixels" in picture.words


def test_equal_pixels_have_one_digest_in_any_file() -> None:
    lossless = [saved(RED, "PNG"), saved(RED, "GIF"), saved(RED, "WEBP", lossless=True)]
    assert len({read_picture(data).digest for data in lossless}) == 1
    assert read_picture(saved(RED.resize((6, 8)), "PNG")).digest != read_picture(lossless[0]).digest


def test_an_animation_shows_its_first_frame_and_says_so() -> None:
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "lime", "blue")]
    picture = read_picture(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert pixel(picture) == (255, 0, 0)
    assert picture.note == "the first of 3 frames"


def test_cmyk() -> None:
    picture = read_picture(saved(Image.new("CMYK", (8, 6), (0, 255, 255, 0)), "JPEG"))
    assert pixel(picture)[0] > 200 > 60 > pixel(picture)[1]


def test_exif_rotation() -> None:
    image = Image.new("RGB", (8, 6), "white")
    image.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    picture = read_picture(saved(image, "PNG", exif=exif))
    assert (picture.width, picture.height) == (6, 8)
    assert pixel(picture, 0, 5) == (0, 0, 0)


def test_sixteen_bits_of_grey() -> None:
    image = Image.new("I;16", (4, 4), 0x8000)
    assert pixel(read_picture(saved(image, "PNG"))) == (128, 128, 128)


def _png16_rgb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = zlib.compress(b"\0" + b"\xff\xff\x80\x00\x00\x00" * 2)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_sixteen_bits_of_colour() -> None:
    assert pixel(read_picture(_png16_rgb())) == (255, 128, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_clear_becomes_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    if mode == "P":
        paletted = Image.new("P", (4, 4), 0)
        paletted.putpalette([0, 0, 0, 0, 0, 0])
        paletted.putpixel((1, 0), 1)
        data = saved(paletted, "PNG", transparency=0)
    else:
        data = saved(image.convert(mode), "PNG")
    picture = read_picture(data)
    assert (pixel(picture, 0, 0), pixel(picture, 0, 1)) == ((255, 255, 255), (0, 0, 0))


def _bomb() -> bytes:
    """A PNG whose header promises 30,000 × 30,000 pixels."""
    data = bytearray(png(8, 8))
    data[16:24] = struct.pack(">II", 30_000, 30_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>'
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "truncated": (lambda: png(90, 80)[:700], "truncated"),
    "header alone": (lambda: png(9, 8)[:20], "damaged"),
    "bomb": (_bomb, "64 million pixels"),
    "svg": (lambda: SVG, "SVG"),
    "text": (lambda: b"hello\n", "no picture"),
    "empty": (lambda: b"", "no picture"),
    "bitmap": (lambda: saved(RED, "BMP"), "no picture"),
    "too many bytes": (lambda: png(8, 8) + bytes(33 << 20), "32 MiB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_one_line(case: str) -> None:
    made, words = REFUSED[case]
    with pytest.raises(PictureError, match=words) as caught:
        read_picture(made(), "shot.png")
    assert "shot.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_content_counts_not_the_ending(tmp_path: Path) -> None:
    wrong = tmp_path / "photo.png"
    wrong.write_bytes(saved(RED, "JPEG"))
    assert read_picture_file(wrong).format == "JPEG"


def test_files_that_are_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.png", Path("/dev/zero")):
        with pytest.raises(PictureError, match="no file"):
            read_picture_file(path)


def test_a_hostile_name_is_shown_as_plain_text() -> None:
    name = "a\x1b[2J\n<|im_end|>" + "b" * 300 + ".png"
    with pytest.raises(PictureError) as caught:
        read_picture(b"no", name)
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(read_picture(png(4, 4), name).name) == 120


def test_data_urls() -> None:
    picture = read_picture(png(5, 4))
    assert read_data_url(picture.data_url).digest == picture.digest
    bare = "data:image/png;charset=utf-8;base64," + base64.b64encode(picture.data).decode()
    assert read_data_url(bare).digest == picture.digest
    for wrong in ("http://x/y.png", "data:text/plain;base64,aGk=", "data:image/png;base64,%%%"):
        with pytest.raises(PictureError):
            read_data_url(wrong)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([png(20, 30), saved(RED, "JPEG"), saved(RED, "GIF"), saved(RED, "WEBP")]),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=6),
    st.integers(1, 3000),
)
def test_a_damaged_file_is_read_or_refused(
    data: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    spoilt = bytearray(data[:length])
    for at, value in changes:
        spoilt[at % len(spoilt)] = value
    try:
        read_picture(bytes(spoilt)).pixels()
    except ModelError as error:
        assert "\n" not in str(error)
