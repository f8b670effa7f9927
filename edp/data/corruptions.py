"""Common corruptions of images, at five severities.

Thirteen of the corruptions of Hendrycks & Dietterich, *Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations*, ICLR 2019 (arXiv 1903.12261),
with the constants of CIFAR-10-C (github.com/hendrycks/robustness,
make_cifar_c.py), computed on the fly. The constants are for images of about 32x32
pixels; kernels have the same size in pixels on larger images.

Not implemented: glass blur, elastic transform and spatter (they need OpenCV or
scikit-image), motion blur and snow (ImageMagick), and frost (photographs). Noise comes
from NumPy, filters from SciPy and Pillow, so values differ from the published files by
rounding.
"""

import io
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage

from edp.errors import InputError

SEVERITIES = (1, 2, 3, 4, 5)

# (generator, images [N, H, W, C] in [0, 1], constant) -> images, clipped afterwards.
_Corruption = Callable[[np.random.Generator, np.ndarray, object], np.ndarray]


def corrupt(name: str, images: np.ndarray, severity: int, seed: int = 0) -> np.ndarray:
    """Corrupts images; deterministic given the arguments.

    Args:
      name: one of `CORRUPTIONS`.
      images: uint8 [N, H, W, C].
      severity: 1 (mildest) to 5.
      seed: of the random numbers.

    Returns:
      uint8 [N, H, W, C].

    Raises:
      InputError: for an unknown name, a severity out of range or images that are not
        uint8 [N, H, W, C].
    """
    if name not in CORRUPTIONS:
        raise InputError(
            f"corruption {name!r} is not known; accepted: {', '.join(CORRUPTIONS)}"
        )
    if severity not in SEVERITIES:
        raise InputError(f"severity={severity!r} must be an integer from 1 to 5")
    if images.dtype != np.uint8 or images.ndim != 4:
        raise InputError(
            "images must be uint8 [N, H, W, C], got "
            f"{images.dtype} {list(images.shape)}"
        )
    function, constants = CORRUPTIONS[name]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), severity])
    result = function(rng, np.float32(images) / 255, constants[severity - 1])
    # Truncated as published; the small offset keeps whole values whole.
    return np.uint8(np.clip(result, 0, 1) * 255 + 1e-4)


def _gaussian_noise(rng, x, scale):
    return x + scale * rng.standard_normal(x.shape, np.float32)


def _shot_noise(rng, x, photons):
    return rng.poisson(x * photons) / photons


def _impulse_noise(rng, x, amount):
    drawn = rng.random(x.shape, np.float32)
    return np.where(drawn < amount / 2, 0, np.where(drawn < amount, 1, x))


def _speckle_noise(rng, x, scale):
    return x + x * scale * rng.standard_normal(x.shape, np.float32)


def _gaussian_blur(rng, x, sigma):
    return ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest")


def _defocus_blur(rng, x, constant):
    """Convolves with a disk whose edge is smoothed by a 3x3 Gaussian."""
    radius, alias_blur = constant
    reach = int(radius) + 1
    grid = np.arange(-reach, reach + 1)
    disk = (grid[:, None] ** 2 + grid**2 <= radius**2).astype(np.float32)
    edge = np.exp(-(np.arange(-1, 2) ** 2) / (2 * alias_blur**2))
    edge /= edge.sum()
    kernel = ndimage.convolve(disk / disk.sum(), np.outer(edge, edge), mode="constant")
    return ndimage.convolve(x, kernel[None, :, :, None], mode="mirror")


def _zoom_blur(rng, x, farthest):
    """Averages the image and its zooms by 1, 1.01, ... up to `farthest`."""
    height, width = x.shape[1:3]
    total, count = x.copy(), 1
    for factor in np.arange(1, farthest, 0.01):
        inner = [int(np.ceil(side / factor)) for side in (height, width)]
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        part = x[:, top : top + inner[0], left : left + inner[1]]
        zoomed = _zoom(part, factor)
        top, left = (zoomed.shape[1] - height) // 2, (zoomed.shape[2] - width) // 2
        total += zoomed[:, top : top + height, left : left + width]
        count += 1
    return total / count


def _zoom(x: np.ndarray, factor: float) -> np.ndarray:
    """Zooms H and W linearly, as `scipy.ndimage.zoom`, by two matrix products."""

    def weights(size: int) -> np.ndarray:
        places = np.linspace(0, size - 1, round(size * factor))
        known, each = np.arange(size), np.eye(size)
        return np.float32([np.interp(places, known, row) for row in each])

    x = np.moveaxis(np.tensordot(x, weights(x.shape[1]), (1, 0)), -1, 1)
    return np.moveaxis(np.tensordot(x, weights(x.shape[2]), (2, 0)), -1, 2)


def _fog(rng, x, constant):
    thickness, decay = constant
    size = 1 << (max(x.shape[1:3]) - 1).bit_length()
    fog = _plasma(rng, len(x), size, decay)[:, : x.shape[1], : x.shape[2], None]
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    return (x + thickness * fog) * brightest / (brightest + thickness)


def _plasma(
    rng: np.random.Generator, number: int, size: int, decay: float
) -> np.ndarray:
    """Returns random heights [number, size, size] in [0, 1].

    Midpoint displacement (diamond-square) on a torus. `size` is a power of two;
    displacements are up to 100², (100 / decay)², (100 / decay²)², ...
    """
    heights = np.zeros((number, size, size))

    def displaced(total, reach):
        return total / 4 + reach * rng.uniform(-reach, reach, total.shape)

    reach, step = 100.0, size
    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=1)
        heights[:, half::step, half::step] = displaced(
            pairs + np.roll(pairs, -1, axis=2), reach
        )
        middles = heights[:, half::step, half::step]
        for axis, place in (
            (1, np.s_[:, ::step, half::step]),
            (2, np.s_[:, half::step, ::step]),
        ):
            other = 3 - axis
            total = middles + np.roll(middles, 1, axis=axis)
            total = total + corners + np.roll(corners, -1, axis=other)
            heights[place] = displaced(total, reach)
        step, reach = half, reach / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return np.float32(heights / heights.max(axis=(1, 2), keepdims=True))


def _brightness(rng, x, added):
    """Adds to the HSV value; hue and saturation are kept."""
    value = x.max(axis=-1, keepdims=True)
    raised = np.minimum(value + added, 1)
    return np.where(value > 0, x * raised / np.where(value > 0, value, 1), raised)


def _saturate(rng, x, constant):
    """Scales and shifts the HSV saturation; grey pixels have hue 0 (red)."""
    factor, added = constant
    if x.shape[-1] != 3:
        return x
    value = x.max(axis=-1, keepdims=True)
    below = value - x
    chroma = below.max(axis=-1, keepdims=True)
    shape = np.where(chroma > 0, below / np.where(chroma > 0, chroma, 1), (0, 1, 1))
    saturation = chroma / np.where(value > 0, value, 1)
    return value - value * np.clip(factor * saturation + added, 0, 1) * shape


def _contrast(rng, x, factor):
    mean = x.mean(axis=(1, 2), keepdims=True)
    return (x - mean) * factor + mean


def _pixelate(rng, x, factor):
    def one(image: Image.Image) -> Image.Image:
        small = tuple(max(1, int(side * factor)) for side in image.size)
        smaller = image.resize(small, Image.Resampling.BOX)
        return smaller.resize(image.size, Image.Resampling.BOX)

    return _each(one, x)


def _jpeg_compression(rng, x, quality):
    def one(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return _each(one, x)


def _each(function: Callable[[Image.Image], Image.Image], x: np.ndarray) -> np.ndarray:
    """Applies a function on Pillow images to every image.

    Images of other than 1 or 3 channels are treated channel by channel.
    """
    if x.shape[-1] not in (1, 3):
        channels = np.split(x, x.shape[-1], axis=-1)
        return np.concatenate([_each(function, one) for one in channels], axis=-1)
    images = np.uint8(np.rint(x * 255))
    single = images.shape[-1] == 1
    made = [
        np.asarray(function(Image.fromarray(image[..., 0] if single else image)))
        for image in images
    ]
    return np.float32(np.stack(made).reshape(x.shape)) / 255


# Name -> function, and its constant at each severity.
CORRUPTIONS: dict[str, tuple[_Corruption, tuple]] = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (_shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "speckle_noise": (_speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2)),
    "gaussian_blur": (_gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "defocus_blur": (
        _defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)),
    ),
    "zoom_blur": (_zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26)),
    "fog": (_fog, ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "saturate": (
        _saturate,
        ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)),
    ),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": (_jpeg_compression, (80, 65, 58, 50, 40)),
}
