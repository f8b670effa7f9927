"""Preparation of one image file for the network, with Pillow.

`prepare` is the only path from an image file to pixels: training, evaluation,
`launch.predict` and the program in docs/deploying.md follow the same steps:

1. Open: only the formats of `FORMATS`; the first frame of animated images.
2. Orient: turn and mirror the image as its EXIF orientation says. Damaged EXIF data
   count as none.
3. 16 bits: of 16-bit PNG files, keep the high byte. Other pixels of more than 8 bits
   (TIFF, PGM) have no fixed range and are refused.
4. Transparency: composite the image on white. An image of which nothing remains
   visible, as white ink on a transparent background, is refused.
5. Colour: convert to greyscale (ITU-R 601-2 luma) or RGB; palettes, bilevel images and
   CMYK included. Colour profiles are ignored.
6. Resize: one bilinear resampling of the whole image or a crop of it, antialiased when
   it shrinks.
"""

import io
import math
import os
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from edp.errors import InputError

# Decoders that are tried. PostScript, which would run a program, and rare formats
# are left out on purpose.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"),
    *(".gif", ".ppm", ".pgm", ".pbm"),
)
BACKGROUND = (255, 255, 255)  # beneath transparent pixels
RESIZES = ("none", "random_crop")
WHOLE = "whole"  # resizes the whole image, aspect ratio not kept

_MODES = {1: "L", 3: "RGB"}
_ORIENTATION = 0x0112  # EXIF tag
# EXIF orientation -> operation that makes the image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Random crops: share of the image's area, ratio of width to height, draws before the
# whole image is taken. Central crops: share of the shorter side.
_AREAS, _RATIOS, _DRAWS = (0.08, 1.0), (3 / 4, 4 / 3), 10
_CENTRE = 224 / 256

_Box = tuple[float, float, float, float]  # left, top, right, bottom


def prepare(
    file: str | os.PathLike | BinaryIO,
    name: str,
    image_shape: tuple[int, int, int],
    resize: str = "none",
    seed: Any = None,
) -> np.ndarray:
    """Reads an image file as the network's input; see the steps above.

    Args:
      file: path or open binary file.
      name: of the image in messages.
      image_shape: (H, W, C) of the result, C = 1 or 3.
      resize: 'none', for images of exactly this size; 'random_crop', a random crop
        if there is a `seed` and else the central one; or `WHOLE`.
      seed: of the random crop, for `numpy.random.default_rng`.

    Returns:
      uint8 [H, W, C].

    Raises:
      InputError: if the image cannot be read, has another size, or has pixels that
        step 3 or 4 refuses.
    """
    height, width, channels = image_shape
    try:
        if isinstance(file, str | os.PathLike):
            # Not by its path: Pillow would map greyscale TIFF files into memory, and
            # scramble those of EXIF orientation 5 to 8. Read at once, as Pillow reads
            # a PNG file in many small parts.
            with open(file, "rb", buffering=0) as opened_file:
                file = io.BytesIO(opened_file.read())
        with Image.open(file, formats=FORMATS) as opened:
            opened.load()
            image = upright(opened)
            size = image.size
            if resize == "none" and size != (width, height):
                raise InputError(
                    f"{name} is {size[1]}x{size[0]} (height x width), but "
                    f"data.image_shape asks for {height}x{width}"
                )
            pixels = _opaque(_eight_bits(image, opened.format, name), name)
            if pixels.mode not in ("1", "L", "P", "RGB"):  # as CMYK
                pixels = pixels.convert("RGB")
            if pixels.mode != _MODES[channels]:  # else a copy
                pixels = pixels.convert(_MODES[channels])
            if resize != "none":
                box = _box(resize, size, (width, height), seed)
                pixels = pixels.resize((width, height), Image.Resampling.BILINEAR, box)
            return np.frombuffer(pixels.tobytes(), np.uint8).reshape(image_shape)
    except InputError:
        raise
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"cannot read the image {name}: it has none of the formats "
            f"{', '.join(FORMATS)}"
        ) from error
    except Exception as error:  # damaged files fail in any layer of a decoder
        why = str(error) or type(error).__name__
        raise InputError(f"cannot read the image {name}: {why}") from error


def upright(image: Image.Image) -> Image.Image:
    """Returns a loaded image turned and mirrored as its EXIF orientation says."""
    try:
        method = _UPRIGHT.get(image.getexif().get(_ORIENTATION))
    except Exception:  # damaged EXIF data
        method = None
    return image if method is None else image.transpose(method)


def _eight_bits(image: Image.Image, format_name: str | None, name: str) -> Image.Image:
    """Returns an image of 8 bits per channel; of 16-bit PNG files the high byte."""
    if image.mode[0] not in "IF":
        return image
    if format_name != "PNG":
        raise InputError(
            f"{name} has pixels of mode {image.mode}; they must have 8 bits, or 16 in "
            "a PNG file"
        )
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _opaque(image: Image.Image, name: str) -> Image.Image:
    """Composites an image that has transparency on `BACKGROUND`."""
    if image.mode not in ("LA", "La", "PA", "RGBA", "RGBa") and (
        "transparency" not in image.info
    ):
        return image
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema()[0] == 255:
        return image.convert("RGB")
    background = Image.new("RGBA", image.size, (*BACKGROUND, 255))
    visible = Image.alpha_composite(background, image).convert("RGB")
    if all(part == (255, 255) for part in visible.getextrema()):
        raise InputError(
            f"{name} is blank once its transparency is laid on white; give it an "
            "opaque background"
        )
    return visible


def _box(
    resize: str, size: tuple[int, int], target: tuple[int, int], seed: Any
) -> _Box | None:
    if resize == WHOLE:
        return None
    if seed is None:
        return central_box(size, target)
    return random_box(size, np.random.default_rng(seed))


def central_box(size: tuple[int, int], target: tuple[int, int]) -> _Box:
    """Returns the crop of an image for evaluation.

    Equals resizing the shorter side to 256/224 of the target's and cropping the
    centre, in one resampling step.

    Args:
      size: width and height.
      target: width and height; the crop has their ratio.
    """
    scale = _CENTRE * min(size[0] / target[0], size[1] / target[1])
    width, height = target[0] * scale, target[1] * scale
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, left + width, top + height


def random_box(size: tuple[int, int], rng: np.random.Generator) -> _Box:
    """Draws a crop for training (Szegedy et al., arXiv 1409.4842, section 6).

    The area is uniform in 8% to 100% of the image's, the aspect ratio log-uniform in
    3/4 to 4/3, the position uniform. After ten draws that do not fit into the image,
    the whole image is taken.
    """
    for _ in range(_DRAWS):
        area = size[0] * size[1] * rng.uniform(*_AREAS)
        ratio = math.exp(rng.uniform(*np.log(_RATIOS)))
        width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if width <= size[0] and height <= size[1]:
            left = rng.uniform(0, size[0] - width)
            top = rng.uniform(0, size[1] - height)
            # Rounding must not exceed the image.
            return left, top, min(left + width, size[0]), min(top + height, size[1])
    return 0, 0, *size
