"""Checks of inputs, `clip` and `scale`."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_members import FakeTeachers, inputs, mlp_members

from edp import perturbations
from edp.errors import InputError

MEAN, STD = np.array([0.4, 0.5, 0.45]), np.array([0.2, 0.25, 0.3])  # per channel
UNITS = {
    "ods": {},
    "conf_ods": {"temperature": 2.0},
    "disagreement": {},
    "disagreement steps": {"num_steps": 3, "step_length": 0.2},
    "gaussian": {},
    "tdiv_sdiv": {},
}


@pytest.mark.parametrize("case", sorted(UNITS))
def test_normalised_inputs_are_perturbed_like_the_pixels(case):
    """Perturb, then normalise = normalise, then perturb with `scale` = 1 / std."""
    name, key = case.split()[0], jax.random.key(2)
    perturb = functools.partial(
        getattr(perturbations, name), key, step_size=0.1, **UNITS[case]
    )
    all_logits = mlp_members(2)

    def normalise(pixels):
        return (pixels - jnp.float32(MEAN)) / jnp.float32(STD)

    def logits_fn(x):  # of a model that takes normalised inputs
        logits = all_logits(x)
        if name == "tdiv_sdiv":
            return logits, None
        return logits[0] if name.endswith("ods") else logits

    # At 0.02 and 0.98 some elements are clipped, at different values per channel.
    pixels = inputs(shape=(2, 2, 3)).at[:, 0].set(0.02).at[:, 1, 0].set(0.98)
    expected = normalise(perturb(lambda x: logits_fn(normalise(x)), pixels))
    clip = ((0 - MEAN) / STD, (1 - MEAN) / STD)
    found = perturb(logits_fn, normalise(pixels), clip=clip, scale=1 / STD)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert (jnp.abs(found - normalise(pixels)) > 0.01).any()
    assert ((found < clip[0] + 1e-5) | (found > clip[1] - 1e-5)).any()
    # Without `scale` the step differs.
    other = perturb(logits_fn, normalise(pixels), clip=clip)
    assert jnp.abs(other - expected).max() > 1e-2
    # Pixels of 0 to 255; and a scale of 1 changes nothing.
    byte = perturb(lambda x: logits_fn(x / 255), 255 * pixels, clip=(0, 255), scale=255)
    of_pixels = perturb(logits_fn, pixels)
    np.testing.assert_allclose(byte / 255, of_pixels, atol=2e-5)
    np.testing.assert_array_equal(perturb(logits_fn, pixels, scale=1.0), of_pixels)


def every_perturbation(**settings):
    """Yields (name, x -> x̃) of each perturbation, for inputs of 12 elements."""
    all_logits = mlp_members(2)
    teachers = FakeTeachers(2, all_logits, lambda m, x: all_logits(x)[m])
    for name in perturbations.PERTURBATIONS:
        config = {"perturbation": name, "step_size": 0.05, **settings}
        perturb = perturbations.create_perturbation(config)
        yield name, lambda x, p=perturb: p(jax.random.key(0), x, teachers)


def test_integer_inputs_are_refused_inside_and_outside_jit():
    for dtype in (jnp.uint8, jnp.int32, bool):
        x = jnp.ones((4, 3, 4), dtype)
        for name, perturb in every_perturbation():
            for fn in (perturb, jax.jit(perturb)):
                if name == "none":
                    np.testing.assert_array_equal(fn(x), x)
                    continue
                with pytest.raises(InputError, match=f"{x.dtype}; accepted: float"):
                    fn(x)


def test_inputs_outside_clip_are_refused_where_their_values_are_known():
    x = inputs(batch=4)
    for name, perturb in every_perturbation():
        if name == "none":
            assert perturb(2 * x) is not None
            continue
        for wrong in (255 * x, x - 0.5, np.asarray(x).copy() + 1):
            with pytest.raises(InputError, match=r"outside clip=\(0\.0, 1\.0\); acc"):
                perturb(wrong)
            with pytest.raises(InputError, match="outside clip"):
                jax.jit(lambda p=perturb, w=wrong: p(w))()  # a constant
        assert jax.jit(perturb)(255 * x).max() == 1  # traced values are not known
        for right in (
            x.at[0, 0].set(-5e-4).at[0, 1].set(1 + 5e-4),  # within the tolerance
            jnp.bfloat16(x).at[0, 0].set(1 + 2**-7),  # one step of its dtype
        ):
            jax.eval_shape(lambda p=perturb, r=right: p(r))


def test_a_clip_of_none_does_not_clip():
    x = inputs().at[:, 0].set(0.0).at[:, 1].set(1.0)
    unclipped = dict(every_perturbation(clip=None))
    for name, perturb in every_perturbation():
        if name in ("none", "mixup"):
            continue
        assert perturb(x).min() >= 0 and perturb(x).max() <= 1
        free = unclipped[name](x)
        assert free.min() < 0 or free.max() > 1
        np.testing.assert_array_equal(jnp.clip(free, 0, 1), perturb(x))
        unclipped[name](255 * x)  # any range is accepted
    # Elsewhere None is the default.
    for name, perturb in every_perturbation(temperature=None, members_at_once=None):
        np.testing.assert_array_equal(perturb(x), dict(every_perturbation())[name](x))


def test_temperatures_that_would_leave_x_unchanged_are_refused():
    for temperature in (0.0, -1.0, math.inf, math.nan):
        for name, perturb in every_perturbation(temperature=temperature):
            if name in ("ods", "conf_ods", "disagreement"):
                with pytest.raises(InputError, match=r"temperature=.* positive, fin"):
                    perturb(inputs())


def test_networks_of_one_class_are_refused_as_every_gradient_would_be_zero():
    one_class = lambda x: x.reshape(1, len(x), -1)[..., :1] * jnp.ones((2, 1, 1))  # noqa: E731
    teachers = FakeTeachers(2, one_class, lambda m, x: one_class(x)[m])
    for name, method in perturbations.PERTURBATIONS.items():
        config = {"perturbation": name, "step_size": 0.05}
        perturb = perturbations.create_perturbation(config)
        if not method.uses_gradients:
            continue
        with pytest.raises(
            InputError, match=r"4, 1\); accepted: .* at least 2 classes"
        ):
            perturb(jax.random.key(0), inputs(batch=4), teachers)


def test_wrong_scales_are_refused():
    x = inputs()
    for scale, message in (
        (jnp.ones(3), r"scale has shape \(3,\); accepted: .* \(4,\)"),
        (np.ones((3, 4)), r"scale has shape \(3, 4\)"),
        (0.0, r"scale=0\.0 is out of range; accepted: positive"),
        (np.array([1, 1, -1, 1]), r"scale=\[1, 1, -1, 1\]"),
        (math.nan, "scale=nan"),
    ):
        with pytest.raises(InputError, match=message):
            perturbations.gaussian(jax.random.key(0), None, x, step_size=1, scale=scale)
    traced = jax.jit(
        lambda scale: perturbations.gaussian(
            jax.random.key(0), None, x, step_size=0.1, scale=scale
        )
    )
    with pytest.raises(InputError, match=r"scale has shape \(2,\)"):
        traced(jnp.ones(2))
    np.testing.assert_array_equal(
        traced(jnp.ones(4)),
        jax.jit(perturbations.gaussian, static_argnums=1)(
            jax.random.key(0), None, x, step_size=0.1
        ),
    )


def test_bounds_per_channel_may_be_tuples():
    x, clip = jnp.full((2, 1, 1, 2), 0.5), ((0.4, 0.5), (0.6, 0.5))
    found = perturbations.gaussian(
        jax.random.key(0), None, x, step_size=10.0, clip=clip
    )
    assert (found[..., 1] == 0.5).all()
    assert set(np.round(np.unique(found[..., 0]), 3)) <= {
        np.float32(0.4),
        np.float32(0.6),
    }
