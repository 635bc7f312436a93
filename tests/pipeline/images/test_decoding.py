"""Encoded images: hnas measures the pixels that a viewer shows, or explains why it cannot."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from hnas.errors import HnasError
from hnas.pipeline.images.decoding import MOST_PIXELS, DecodingError, rgb_pixels
from hnas.pipeline.images.pixels import decode


@pytest.fixture(scope="module")
def patch() -> np.ndarray:
    """A crop of a real photograph, uint8 (24, 40, 3): not square, and different under every rotation and flip."""
    from sklearn.datasets import load_sample_image

    return np.asarray(load_sample_image("flower.jpg"))[100:124, 200:240]


def saved(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def complaint(content: bytes) -> str:
    with pytest.raises(HnasError, match=r"^x\.png ") as caught:
        decode(content, lambda: "x.png")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *further: bytes, interlaced: int = 0) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    parts = (chunk(b"IHDR", head), *further, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(pixels: np.ndarray, **tags: tuple[int, ...]) -> bytes:
    """A TIFF of one strip, assembled by hand because Pillow writes few of the variants."""
    height, width, channels = pixels.shape
    numbers = {
        254: (0,), 256: (width,), 257: (height,), 258: (8 * pixels.itemsize,) * channels, 259: (1,),
        262: (2 if channels > 2 else 1,), 273: (0,), 277: (channels,), 278: (height,), 279: (pixels.nbytes,),
    } | {int(tag[1:]): values for tag, values in tags.items()}  # fmt: skip
    offset = 8 + 2 + 12 * len(numbers) + 4
    tail = b""
    entries = b""
    for tag, values in sorted(numbers.items()):
        if len(values) > 2:
            place, count = offset + len(tail), len(values)
            tail += struct.pack(f"<{count}H", *values)
            entries += struct.pack("<HHII", tag, 3, count, place)
        elif tag == 273:
            entries += b"STRIPOFFSETS"
        else:
            entries += struct.pack("<HHI", tag, 4 if len(values) == 1 else 3, len(values))
            entries += struct.pack("<I", *values) if len(values) == 1 else struct.pack("<HH", *values)
    entries = entries.replace(b"STRIPOFFSETS", struct.pack("<HHII", 273, 4, 1, offset + len(tail)))
    return b"II*\0" + struct.pack("<IH", 8, len(numbers)) + entries + bytes(4) + tail + pixels.tobytes()


# --- bits -----------------------------------------------------------------------------------------------------------

DEEP = "has more than 8 bits per channel"


@pytest.mark.parametrize(("channels", "colour"), [(1, 0), (2, 4), (3, 2), (4, 6)])
@pytest.mark.parametrize("largest", [4096, 65536])
def test_16_bits_per_channel_are_rejected_in_every_png(channels: int, colour: int, largest: int) -> None:
    pixels = np.random.default_rng(0).integers(0, largest, (8, 8 * channels)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    assert DEEP in complaint(png(8, 8, 16, colour, rows))


@pytest.mark.parametrize("tags", [{}, {"t338": (2,)}])
@pytest.mark.parametrize("kind", ["u2", "u4", "f4", "f8"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_more_than_8_bits_are_rejected_in_every_tiff(
    channels: int, kind: str, tags: dict[str, tuple[int, ...]]
) -> None:
    pixels = np.ones((8, 8, channels), dtype=f"<{kind}")
    formats = {"t339": (3,) * channels} if kind[0] == "f" else {}
    sentence = complaint(tiff(pixels, **(tags if channels in (2, 4) else {}), **formats))
    assert DEEP in sentence or "an unsupported or damaged TIFF" in sentence


@pytest.mark.parametrize("magic", [b"P5", b"P6", b"P2", b"P3"])
@pytest.mark.parametrize("largest", [256, 4095, 65535])
def test_more_than_8_bits_are_rejected_in_netpbm(magic: bytes, largest: int) -> None:
    channels = 3 if magic in (b"P6", b"P3") else 1
    values = np.arange(16 * channels, dtype=">u2")
    pixels = values.tobytes() if magic in (b"P5", b"P6") else " ".join(map(str, values)).encode()
    assert DEEP in complaint(b"%s 4 4 %d\n" % (magic, largest) + pixels)


def test_a_maximum_value_below_255_is_white() -> None:
    assert rgb_pixels(b"P5 2 1 15\n\x00\x0f")[0, :, 0].tolist() == [0, 255]
    assert rgb_pixels(b"P6 1 1 100\n\x00\x32\x64")[0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_spans_black_to_white(bits: int) -> None:
    values = np.arange(8) % 2**bits
    packed = np.packbits([(value >> bit) & 1 for value in values for bit in range(bits - 1, -1, -1)]).tobytes()
    assert rgb_pixels(png(8, 1, bits, 0, b"\0" + packed))[0, :, 1].tolist() == [
        round(v * 255 / (2**bits - 1)) for v in values
    ]


def test_signed_numbers_are_rejected() -> None:
    assert "not unsigned integers" in complaint(tiff(np.full((4, 4, 1), -1, np.int8), t339=(2,)))


def test_bilevel_images_are_black_and_white_in_either_polarity(patch: np.ndarray) -> None:
    image = Image.fromarray(patch).convert("1")
    expected = np.asarray(image.convert("RGB"))
    for kind, options in (("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "group4"}), ("BMP", {}), ("PPM", {})):
        assert np.array_equal(rgb_pixels(saved(image, kind, **options)), expected)
    inverted = saved(image, "TIFF", tiffinfo={262: 0})
    assert np.array_equal(rgb_pixels(inverted), np.asarray(Image.open(io.BytesIO(inverted)).convert("RGB")))


# --- orientation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "libtiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied_once(patch: np.ndarray, kind: str, orientation: int) -> None:
    """`stored` is what a camera in that orientation writes for the upright scene `patch`."""
    across = patch.swapaxes(0, 1)
    turned = (across, across[::-1], across[::-1, ::-1], across[:, ::-1])
    views = (patch, patch[:, ::-1], patch[::-1, ::-1], patch[::-1], *turned)
    stored = np.ascontiguousarray(views[orientation - 1])
    exif = Image.Exif()
    exif[274] = orientation
    if kind == "libtiff":
        content = saved(stored, "TIFF", compression="tiff_lzw", tiffinfo={274: orientation})
    elif kind == "TIFF":
        content = saved(stored, "TIFF", tiffinfo={274: orientation})
    else:
        options = {"lossless": True} if kind == "WEBP" else {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
        content = saved(stored, kind, exif=exif, **options)
    found = rgb_pixels(content).astype(int)
    assert found.shape == patch.shape
    assert np.abs(found - patch).mean() < (2 if kind == "JPEG" else 1e-9)


@pytest.mark.parametrize("exif", [b"garbage", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"])
def test_damaged_metadata_does_not_spoil_an_image(patch: np.ndarray, exif: bytes) -> None:
    content = saved(patch, "JPEG", exif=b"Exif\0\0" + exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rgb_pixels(content).shape == patch.shape


# --- transparency, palettes, colour spaces --------------------------------------------------------------------------


def over_white(rgba: np.ndarray) -> np.ndarray:
    colour, alpha = rgba[..., :3].astype(float), rgba[..., 3:].astype(float) / 255
    return np.floor(colour * alpha + 255 * (1 - alpha) + 0.5)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparent_pixels_are_composited_over_white(patch: np.ndarray, kind: str) -> None:
    alpha = np.tile(np.linspace(0, 255, patch.shape[1]).astype(np.uint8), (len(patch), 1))
    rgba = np.dstack([patch, alpha])
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert np.abs(rgb_pixels(saved(rgba, kind, **options)) - over_white(rgba)).max() <= 1
    rgba[..., 3] = 255
    assert np.array_equal(rgb_pixels(saved(rgba, kind, **options)), patch)


def test_a_black_drawing_on_a_transparent_background_stays_visible() -> None:
    drawing = np.zeros((8, 8, 2), np.uint8)
    drawing[2:6, 3, 1] = 255
    found = rgb_pixels(saved(Image.fromarray(drawing, "LA"), "PNG"))
    assert (found[2:6, 3] == 0).all()
    assert (np.delete(found, 3, axis=1) == 255).all()


@pytest.mark.parametrize(
    ("colour", "rows", "transparent"),
    [(0, b"\0\x07\x64", struct.pack(">H", 7)), (2, b"\0\x07\x08\x09\x64\x64\x64", struct.pack(">HHH", 7, 8, 9))],
)
def test_a_transparent_key_colour_becomes_white(colour: int, rows: bytes, transparent: bytes) -> None:
    assert rgb_pixels(png(2, 1, 8, colour, rows, chunk(b"tRNS", transparent)))[0].tolist() == [[255] * 3, [100] * 3]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palettes_are_applied_and_transparent_entries_are_white(kind: str) -> None:
    image = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 1, 2, 3])
    expected = [[10, 20, 30], [40, 50, 60], [70, 80, 90], [1, 2, 3]]
    assert rgb_pixels(saved(image, kind))[0].tolist() == expected
    assert rgb_pixels(saved(image, kind, transparency=2))[0].tolist() == [*expected[:2], [255] * 3, expected[3]]


def test_premultiplied_colours_are_composited_over_white() -> None:
    pixels = np.array([[[64, 32, 0, 128], [0, 0, 0, 0]]], np.uint8)
    found = rgb_pixels(tiff(pixels, t338=(1,)))[0].astype(int)
    assert np.abs(found - [[191, 159, 127], [255, 255, 255]]).max() <= 1


def test_extra_channels_are_rejected() -> None:
    assert "extra channels besides colour" in complaint(tiff(np.ones((4, 4, 4), np.uint8), t338=(0,)))
    assert "extra channels besides colour" in complaint(tiff(np.ones((4, 4, 5), np.uint8), t338=(2, 0)))


def test_cmyk_and_ycbcr_become_rgb_and_lab_is_rejected(patch: np.ndarray) -> None:
    image = Image.fromarray(patch)
    for kind, mode in (("JPEG", "CMYK"), ("TIFF", "CMYK"), ("TIFF", "YCbCr")):
        found = rgb_pixels(saved(image.convert(mode), kind)).astype(int)
        assert np.abs(found - patch).mean() < 6, (kind, mode)
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    assert "has the colour space LAB" in complaint(saved(lab, "TIFF"))


def test_a_colour_profile_changes_nothing(patch: np.ndarray) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    assert np.array_equal(rgb_pixels(saved(patch, "PNG", icc_profile=profile)), patch)


# --- several images, interlacing, damage, size ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_images_in_a_file_are_rejected(patch: np.ndarray, kind: str) -> None:
    first, second = Image.fromarray(patch), Image.fromarray(255 - patch)
    assert "holds more than one image" in complaint(saved(first, kind, save_all=True, append_images=[second]))
    assert rgb_pixels(saved(first, kind, save_all=True)).shape == patch.shape


def test_a_reduced_copy_of_a_page_is_not_a_second_page(patch: np.ndarray) -> None:
    copy = Image.fromarray(patch).resize((8, 8))
    copy.encoderinfo = {"tiffinfo": {254: 1}}
    content = saved(patch, "TIFF", save_all=True, append_images=[copy])
    assert Image.open(io.BytesIO(content)).n_frames == 2
    assert np.array_equal(rgb_pixels(content), patch)


def test_the_first_image_of_a_phones_jpeg_is_used(patch: np.ndarray) -> None:
    whole, preview = Image.fromarray(patch), Image.fromarray(255 - patch)
    content = saved(whole, "MPO", save_all=True, append_images=[preview], quality=98)
    assert np.abs(rgb_pixels(content).astype(int) - patch).mean() < 4


def test_interlaced_png_and_progressive_jpeg_give_the_same_pixels(patch: np.ndarray) -> None:
    plain, progressive = saved(patch, "JPEG"), saved(patch, "JPEG", progressive=True)
    assert np.array_equal(rgb_pixels(plain), rgb_pixels(progressive))
    grey = patch[:8, :8, 0]
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(b"\0" + row.tobytes() for y, x, dy, dx in passes for row in grey[y::dy, x::dx])
    assert np.array_equal(rgb_pixels(png(8, 8, 8, 0, rows, interlaced=1))[..., 0], grey)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF"])
def test_an_image_truncated_at_any_length_is_rejected(patch: np.ndarray, kind: str) -> None:
    whole = saved(patch, kind)
    pixels = rgb_pixels(whole)
    for length in range(0, len(whole) - 16, max(1, len(whole) // 60)):
        try:
            found = rgb_pixels(whole[:length])
        except DecodingError:
            continue
        assert np.array_equal(found, pixels), "missing data must not become pixels"


def test_an_unsupported_image_is_reported_with_its_format(patch: np.ndarray) -> None:
    content = bytearray(saved(patch, "JPEG"))
    content[content.index(b"\xff\xc0") + 4] = 12  # bits per channel
    assert "an unsupported or damaged JPEG" in complaint(bytes(content))


@pytest.mark.parametrize("side", [13_000, 8_193, 50_000, 2**31 - 1])
def test_a_decompression_bomb_is_rejected_before_decoding(side: int, recwarn: pytest.WarningsRecorder) -> None:
    rows = zlib.compress(b"\0" * (1 + side)) if side < 2**20 else b""
    assert "pixels, more than the limit of 67,108,864" in complaint(png(side, side, 8, 0, rows))
    assert not recwarn.list
    assert side**2 > MOST_PIXELS
