"""Decodes an image file to 8-bit RGB pixels as a viewer shows them, or explains why that would lose information.

Applied: orientation (EXIF, XMP, TIFF), palettes, grey of 1 to 8 bits, YCbCr and CMYK; transparent pixels are composited
over white. Refused, because information would be lost: more than 8 bits per channel, signed or real numbers, extra
channels, and further images in the file. Ignored, as in the field's own loaders: colour profiles and gamma.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

# A closed list, because some of Pillow's other readers start programs (EPS runs Ghostscript).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
#: A larger image takes more than 200 MB. Pillow's own limit is higher and at first only warns.
MOST_PIXELS = 2**26

_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr")
_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"RIFF": "WEBP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_ORIENTATION = 274
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SUBFILE_TYPE, _BITS_PER_SAMPLE, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 254, 258, 338, 339


class DecodingError(Exception):
    """The end of a sentence that begins with the position of the image."""


def rgb_pixels(content: bytes) -> NDArray[np.uint8]:
    """Decode to pixels (H, W, 3). Raises `DecodingError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about sizes, which are checked here, and odd metadata
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check(image, content)
                image.load()
                return _flat(_upright(image))
    except DecodingError:
        raise
    except Image.DecompressionBombError as error:
        raise DecodingError(f"has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels{_LIMIT}") from error
    except Exception as error:  # Pillow's parsers raise OSError, SyntaxError, struct.error, ...
        reason = _unknown(content) if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
        raise DecodingError(
            f"cannot be decoded ({reason}); give a complete image file in one of the formats {', '.join(FORMATS)}"
        ) from error


def image_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Return pixels (H, W, 3) of an image opened or made by Pillow. Raises `DecodingError`."""
    if image.mode not in _MODES:
        raise DecodingError(f"has the colour space {image.mode}; convert it to grey or RGB")
    try:
        return _flat(_upright(image))
    except Exception as error:  # from the underlying file, which Pillow reads lazily
        raise DecodingError(f"cannot be decoded ({error}); give a complete image") from error


_LIMIT = f", more than the limit of {MOST_PIXELS:,}; make it smaller"


def _unknown(content: bytes) -> str:
    recognised = next((name for start, name in _SIGNATURES.items() if content.startswith(start)), None)
    return f"an unsupported or damaged {recognised}" if recognised else "it is in none of these formats"


def _check(image: Image.Image, content: bytes) -> None:
    """Raise `DecodingError` if 8-bit RGB cannot represent the content of the file."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise DecodingError(f"has {width}x{height} pixels{_LIMIT}")
    tags = image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]
    deep = image.mode == "F" or image.mode.startswith("I")
    if deep or _bits(image, content) > 8:
        # Pillow clips grey at 255 and drops the low bits of colour.
        raise DecodingError("has more than 8 bits per channel, which would get lost; scale its values to 0 to 255")
    if set(tags.get(_SAMPLE_FORMAT, (1,))) != {1}:
        raise DecodingError("has pixels that are not unsigned integers; convert it to 8 unsigned bits per channel")
    if 0 in tags.get(_EXTRA_SAMPLES, ()) or len(tags.get(_EXTRA_SAMPLES, ())) > 1:
        raise DecodingError("has extra channels besides colour and transparency; convert it to grey or RGB")
    if image.mode not in _MODES:
        raise DecodingError(f"has the colour space {image.mode}; convert it to grey or RGB")
    if _several(image):
        raise DecodingError("holds more than one image (an animation or pages); save each one you need to its own file")


def _bits(image: Image.Image, content: bytes) -> int:
    """Return the bits per channel in the file; Pillow's decoded image may have fewer."""
    if image.format == "PNG":
        return content[24]
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))))  # type: ignore[attr-defined]
    if image.format == "PPM":
        arguments = image.tile[0].args  # type: ignore[attr-defined]  # (mode, largest value) if that is not 255
        largest = arguments[1] if isinstance(arguments, tuple) else 255
        return int(largest).bit_length()
    return 8


def _several(image: Image.Image) -> bool:
    if image.format in ("GIF", "PNG", "WEBP"):
        return bool(getattr(image, "is_animated", False))
    if image.format != "TIFF":
        return False  # further images in a JPEG (MPO) are previews, depth maps and gain maps of the first
    for page in range(1, image.n_frames):  # type: ignore[attr-defined]
        image.seek(page)
        if not image.tag_v2.get(_SUBFILE_TYPE, 0) & 1:  # type: ignore[attr-defined]
            return True  # a separate page; bit 0 marks a reduced copy of another page
    image.seek(0)
    return False


def _upright(image: Image.Image) -> Image.Image:
    """Return the loaded image, oriented. Pillow itself has already turned a TIFF and removed its tag."""
    try:
        turned = _TURNED.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata with intact pixels, common in photographs
        return image
    return image if turned is None else image.transpose(turned)


def _flat(image: Image.Image) -> NDArray[np.uint8]:
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    if image.mode == "La":
        image = image.convert("LA")
    rgba = np.asarray(image.convert("RGBA")).astype(np.uint16)
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
