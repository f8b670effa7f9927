"""Tests of corruptions: hand-computed values, moments of noise, common properties."""

import colorsys

import numpy as np
import pytest
from scipy import ndimage

from edp.data import corruptions
from edp.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from edp.errors import InputError


def noise_free(number=6, size=16, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (number, size // 4, size // 4, channels))
    return np.uint8(np.kron(coarse, np.ones((1, 4, 4, 1))))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_all_keep_the_form_repeat_themselves_and_grow(name, channels):
    images = noise_free(channels=channels)
    before = images.copy()
    distances = []
    for severity in SEVERITIES:
        result = corrupt(name, images, severity, seed=1)
        assert result.dtype == np.uint8 and result.shape == images.shape
        np.testing.assert_array_equal(result, corrupt(name, images, severity, seed=1))
        distances.append(np.abs(result - np.float64(images)).mean())
    np.testing.assert_array_equal(images, before)
    if (name, channels) != ("saturate", 1):
        assert distances[-1] > distances[0] and distances[-1] > 0.3
    if name == "saturate":  # away from colour, then towards it
        assert channels == 1 or distances[1] > distances[0]
    elif name not in ("zoom_blur", "pixelate"):  # those depend on what is where
        assert distances == sorted(distances)


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_images_of_any_number_of_channels_are_corrupted(channels):
    images = noise_free(number=2, channels=channels)
    for name in CORRUPTIONS:
        assert corrupt(name, images, 2).shape == images.shape
    for name in ("pixelate", "jpeg_compression"):  # by Pillow, channel by channel
        alone = corrupt(name, images[..., 1:2], 2)
        np.testing.assert_array_equal(corrupt(name, images, 2)[..., 1:2], alone)


@pytest.mark.parametrize("name", ["gaussian_noise", "fog", "impulse_noise"])
def test_what_is_random_is_drawn_from_the_seed(name):
    images = noise_free()
    first, second = (corrupt(name, images, 3, seed=seed) for seed in (0, 1))
    assert (first != second).any()


def test_noise_has_the_published_moments():
    grey = np.full((50, 32, 32, 3), 128, np.uint8)
    level = 128 / 255

    def moments(name, severity):
        noise = (np.float64(corrupt(name, grey, severity)) + 0.5) / 255 - level
        return noise.mean(), noise.std()

    for name, severity, scale in (
        ("gaussian_noise", 5, 0.1),
        ("speckle_noise", 5, 0.2 * level),
        ("shot_noise", 5, np.sqrt(level / 50)),
    ):
        mean, std = moments(name, severity)
        assert abs(mean) < 0.003, name
        assert std == pytest.approx(scale, rel=0.02), name
    salted = corrupt("impulse_noise", grey, 5)
    for value in (0, 255):
        assert (salted == value).mean() == pytest.approx(0.035, rel=0.05)
    assert ((salted == 0) | (salted == 255) | (salted == 128)).all()


def test_brightness_and_saturation_are_those_of_hsv():
    images = np.array([[[[200, 100, 50], [0, 0, 0], [90, 90, 90], [255, 0, 128]]]])
    images = np.uint8(images)
    for name, change in (
        ("brightness", lambda h, s, v: (h, s, min(v + 0.2, 1))),
        ("saturate", lambda h, s, v: (h, min(s * 2 + 0.1, 1), v)),
    ):
        result = corrupt(name, images, 4)
        for before, after in zip(images[0, 0], result[0, 0], strict=True):
            expected = colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*before / 255)))
            np.testing.assert_allclose(after, 255 * np.array(expected), atol=1.001)


def test_contrast_by_hand():
    images = np.uint8([[[[100]], [[200]]]])  # their mean is 150
    np.testing.assert_array_equal(corrupt("contrast", images, 2), [[[[125]], [[175]]]])


def test_blurs_keep_what_is_flat_and_spread_a_point():
    flat = np.full((1, 16, 16, 1), 77, np.uint8)
    point = np.zeros((1, 17, 17, 1), np.uint8)
    point[0, 8, 8] = 255
    for name in ("gaussian_blur", "defocus_blur", "zoom_blur"):
        assert np.abs(np.int32(corrupt(name, flat, 5)) - 77).max() <= 1
    # A disk of radius 1.5 is the square of 3x3; its edge is hardly smoothed.
    spread = corrupt("defocus_blur", point, 5)[0, :, :, 0]
    np.testing.assert_allclose(spread[7:10, 7:10], 255 / 9, atol=1)
    assert spread.sum() == spread[7:10, 7:10].sum()
    weights = np.exp(-(np.arange(-4, 5) ** 2) / 2.0)
    weights /= weights.sum()
    spread = corrupt("gaussian_blur", point, 5)[0, 4:13, 4:13, 0]
    np.testing.assert_allclose(spread, 255 * np.outer(weights, weights), atol=1)


@pytest.mark.parametrize("factor", [1.0, 1.01, 1.13, 1.25])
def test_zoom_is_scipys(factor):
    x = np.float32(noise_free(number=2)[:, :15]) / 255
    expected = ndimage.zoom(x, (1, factor, factor, 1), order=1)
    np.testing.assert_allclose(corruptions._zoom(x, factor), expected, atol=1e-5)


def test_pixelate_averages_blocks():
    """At 0.65, ten pixels become six."""
    row = np.arange(0, 100, 10, dtype=np.uint8)
    images = np.broadcast_to(row[None, :, None, None], (1, 10, 10, 1)).copy()
    result = corrupt("pixelate", images, 5)[0, :, :, 0]
    assert len(np.unique(result)) == 6
    assert (result == result[:, :1]).all()


def test_what_does_not_fit_is_refused():
    images = noise_free()
    with pytest.raises(InputError, match=r"'frost'.*gaussian_noise"):
        corrupt("frost", images, 1)
    for severity in (0, 6, 1.5, None):
        with pytest.raises(InputError, match="from 1 to 5"):
            corrupt("fog", images, severity)
    for wrong in (images[0], np.float32(images)):
        with pytest.raises(InputError, match="uint8"):
            corrupt("fog", wrong, 1)
