"""Tests of the order of batches and of augmentation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_data import create, make_config

from edp import data
from edp.errors import InputError


def test_epoch_order_visits_distinct_examples_and_drops_the_last_batch():
    order = jax.jit(data.epoch_order, static_argnums=(1, 2))
    first = order(jax.random.key(0), 23, 5)
    assert first.shape == (4, 5) and first.dtype == jnp.int32
    visited = np.unique(first)
    assert visited.size == 20 and visited.min() >= 0 and visited.max() < 23
    np.testing.assert_array_equal(first, order(jax.random.key(0), 23, 5))
    assert (first != order(jax.random.key(1), 23, 5)).any()
    whole = order(jax.random.key(0), 6, 6)
    assert sorted(whole[0].tolist()) == [*range(6)]
    # Members visit them as they would alone, each with a key of its own.
    keys = jax.random.split(jax.random.key(0), 3)
    members = data.epoch_order(jax.random.key(0), 23, 5, 3)
    assert members.shape == (4, 3, 5)
    for member, key in enumerate(keys):
        np.testing.assert_array_equal(members[:, member], order(key, 23, 5))
    # Every example is left out at times, and comes first at times.
    keys = jax.random.split(jax.random.key(2), 300)
    orders = jax.jit(jax.vmap(lambda key: data.epoch_order(key, 5, 2)))(keys)
    assert set(np.unique(orders[:, 0, 0])) == set(range(5))
    for size in (0, -1, 24):
        with pytest.raises(InputError, match=f"batch_size is {size} .* 23"):
            data.epoch_order(jax.random.key(0), 23, size)


def test_a_member_visits_its_bootstrap_sample_in_every_epoch():
    num_examples, key = 400, jax.random.key(5)
    samples = np.asarray(data.bootstrap_samples(key, num_examples, 2))
    assert samples.shape == (2, num_examples)
    for sample in samples:  # 1 - 1/e of the examples, give or take three deviations
        assert abs(len(np.unique(sample)) / num_examples - 0.632) < 0.05
    assert (np.sort(samples[0]) != np.sort(samples[1])).any()

    order_key, own_key = (
        np.asarray(jax.random.key_data(k)) for k in (jax.random.key(0), key)
    )
    order = data.EpochOrder(order_key, num_examples, 50, 2, own_key)
    epochs = [np.asarray(jax.jit(order)(np.int32(epoch))) for epoch in range(2)]
    assert (epochs[0] != epochs[1]).any()
    for visited in epochs:
        assert visited.shape == (8, 2, 50) and visited.dtype == np.int32
        for member, sample in enumerate(samples):
            seen = np.sort(visited[:, member].ravel())
            np.testing.assert_array_equal(seen, np.sort(sample))


@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (2, 3, 2)])
def test_take_gathers_for_indices_of_any_shape(shape):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (11, 4, 5, 3), dtype=np.uint8)
    split = data.Split(images, rng.integers(0, 9, 11).astype(np.int32))
    indices = rng.integers(0, 11, shape)
    taken, labels = jax.jit(data.take)(jax.device_put(split), indices)
    assert taken.dtype == jnp.uint8 and labels.dtype == jnp.int32
    np.testing.assert_array_equal(taken, images[indices])
    np.testing.assert_array_equal(labels, split.labels[indices])


def test_to_float_maps_bytes_to_the_unit_interval():
    images = np.arange(256, dtype=np.uint8).reshape(2, 2, 8, 8)
    floats = jax.jit(data.to_float)(images)
    assert floats.dtype == jnp.float32 and floats.shape == images.shape
    assert floats.min() == 0 and floats.max() == 1
    np.testing.assert_allclose(floats, images / 255, rtol=1e-6)
    with pytest.raises(AssertionError):
        data.to_float(floats)


def crops(image, padding, flips):
    """Computes all crops of one image [H, W, C] by loops: (top, left, flip) -> crop."""
    height, width, _ = image.shape
    found = {}
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            for flip in flips:
                crop = np.zeros_like(image)
                for i in range(height):
                    for j in range(width):
                        row = i + top - padding
                        column = (width - 1 - j if flip else j) + left - padding
                        if 0 <= row < height and 0 <= column < width:
                            crop[i, j] = image[row, column]
                found[top, left, flip] = crop
    return found


@pytest.mark.parametrize(
    ("padding", "flip", "dtype"),
    [
        (2, True, np.uint8),
        (2, True, np.float32),
        (2, False, np.uint8),
        (0, True, np.uint8),
        (7, True, np.uint8),
    ],
)
def test_augment_gives_each_image_one_of_its_crops(padding, flip, dtype):
    rng = np.random.default_rng(0)
    size = 3 if padding == 7 else 400
    image = rng.integers(1, 256, (4, 6, 3)).astype(dtype)
    batch = np.broadcast_to(image, (size, *image.shape))
    function = jax.jit(data.augment, static_argnames=("crop_padding", "flip"))
    result = function(jax.random.key(0), batch, crop_padding=padding, flip=flip)
    assert result.shape == batch.shape and result.dtype == dtype
    expected = crops(image, padding, (False, True) if flip else (False,))
    names = {crop.tobytes(): name for name, crop in expected.items()}
    seen = [names[crop.tobytes()] for crop in np.asarray(result)]  # KeyError: none.
    if padding == 7:  # Crops may lie wholly in the padding.
        return
    assert len(names) == len(expected)
    counts = np.array([seen.count(name) for name in expected])
    assert (counts > 0).all()
    # Independent and uniform: chi-squared, at seven standard deviations.
    mean = size / len(expected)
    freedom = len(expected) - 1
    statistic = ((counts - mean) ** 2 / mean).sum()
    assert statistic < freedom + 7 * np.sqrt(2 * freedom)
    again = function(jax.random.key(0), batch, crop_padding=padding, flip=flip)
    np.testing.assert_array_equal(result, again)
    other = function(jax.random.key(1), batch, crop_padding=padding, flip=flip)
    assert (np.asarray(result) != np.asarray(other)).any()


def test_augment_treats_each_image_as_itself():
    rng = np.random.default_rng(1)
    images = rng.integers(1, 256, (5, 4, 6, 1), dtype=np.uint8)
    function = jax.jit(functools.partial(data.augment, crop_padding=1, flip=True))
    result = function(jax.random.key(3), images)
    for image, crop in zip(images, np.asarray(result), strict=True):
        candidates = crops(image, 1, (False, True)).values()
        assert sum(np.array_equal(crop, candidate) for candidate in candidates) == 1
    # Moving pixels and scaling them commute.
    floats = function(jax.random.key(3), data.to_float(images))
    np.testing.assert_array_equal(floats, data.to_float(result))


def test_augment_off_is_the_identity_and_members_can_be_mapped():
    images = np.arange(1, 97, dtype=np.float32).reshape(2, 3, 4, 4, 1)
    member = images[0]
    assert data.augment(jax.random.key(0), member) is member
    function = functools.partial(data.augment, crop_padding=2, flip=True)
    keys = jax.random.split(jax.random.key(0), 2)
    result = jax.jit(jax.vmap(function))(keys, images)
    for member in range(2):
        alone = jax.jit(function)(keys[member], images[member])
        np.testing.assert_array_equal(result[member], alone)
    same = jax.jit(jax.vmap(function))(keys, images[:1].repeat(2, axis=0))
    assert (same[0] != same[1]).any()
    with pytest.raises(InputError, match="crop_padding is -1"):
        data.augment(keys[0], images[0], crop_padding=-1)


def test_a_training_step_reads_batches_under_jit():
    train = jax.device_put(create(make_config()).train)

    @jax.jit
    def step(key):
        order = data.epoch_order(key, 400, 16)
        images, labels = data.take(train, order[0])
        images = data.augment(key, images, crop_padding=1, flip=False)
        return data.to_float(images), labels

    images, labels = step(jax.random.key(0))
    assert images.shape == (16, 8, 8, 1) and images.dtype == jnp.float32
    assert labels.shape == (16,) and 0.1 < images.mean() < 0.6
