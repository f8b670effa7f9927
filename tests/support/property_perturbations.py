"""Property checks of the perturbations and their objectives."""

import math
import types

import jax.numpy as jnp
import numpy as np
import pytest
from property_cases import IMAGE
from property_checks import close, covers, finite, jitted
from property_geometry import check_perturbed

from edp import losses, perturbations
from edp.errors import InputError
from edp.perturbations import objectives


@covers(*perturbations.QUANTITIES.values(), objectives.random_output)
def check_quantities(case):
    m, b, k = case.shape
    z, tau, key = case.logits(m, b), case.temperature, case.key
    order = case.rng.permutation(k)
    drawn = (objectives.projection, objectives.random_output)
    for function in (*perturbations.QUANTITIES.values(), objectives.random_output):
        cotangent = jitted(function)(key, z, tau)
        values = finite(cotangent, z.shape, jnp.float32, -1, 1)
        close(values.sum(-1), np.zeros((m, b)), 0, 1e-4)  # as for any softmax
        largest = np.abs(values).max((0, 2))
        assert ((largest == 0) | (largest > 1 - 1e-6)).all()
        if function is not objectives.random_output and case.logits_of == "equal":
            assert (values == 0).all()
        if function not in drawn and case.is_smooth:
            close(jitted(function)(key, z[::-1], tau), cotangent[::-1], 1e-2, 1e-3)
            permuted = jitted(function)(key, z[..., order], tau)
            close(permuted, cotangent[..., order], 1e-2, 1e-3)


@covers(objectives.difference_of_two)
def check_difference(case):
    _, b, k = case.shape
    z = case.logits(2, b)
    difference, scale = jitted(objectives.difference_of_two)(z)
    most = 2 * (k - 1)  # of the top class, whose entry is minus the sum of the others
    finite(difference, (b, k), jnp.float32, -most, most, slack=1e-5 * k)
    finite(scale, (b, 1), jnp.float32)
    log_p = np.float64(jitted(losses.log_probs)(z, 1.0))
    p, same = np.exp(log_p), 8 * np.finfo(np.float32).eps * np.abs(log_p).max()
    actual = np.float64(difference) * np.exp(np.float64(scale))
    close(actual, p[0] - p[1], 1e-3, 1e-5 + same)
    swapped, _ = jitted(objectives.difference_of_two)(z[::-1])
    close(swapped, -difference)


def linear_members(case, num_members, batch):
    """Returns the arrays of members linear in x around the case's logits."""
    size = math.prod(IMAGE)
    base = case.logits(num_members, batch)
    weights = case.rng.normal(size=(num_members, size, case.shape[-1]))
    weights = weights * case.rng.choice([0.0, 1.0, 1e4])
    return base, jnp.asarray(np.float32(weights), case.dtype)


def logits_of(arrays):
    base, weights = arrays
    return lambda x: (
        base
        + jnp.einsum(
            "bd,mdk->mbk", x.reshape(len(x), -1).astype(weights.dtype), weights
        )
    )


@covers(
    perturbations.none,
    perturbations.gaussian,
    perturbations.mixup,
    perturbations.mix_labels,
    perturbations.mixup_pairs,
    perturbations.mix_batch,
)
def check_without_models(case):
    x = case.images(case.shape[1])
    assert perturbations.none(case.key, None, x, step_size=case.step_size) is x
    perturbed = jitted(_gaussian)(case.key, x, case.step_size)
    finite(perturbed, x.shape, x.dtype, 0, 1, slack=0)
    if case.step_size == 0:
        np.testing.assert_array_equal(perturbed, x)
    alpha = case.rng.choice([1e-3, 0.2, 1.0, 50.0]) if case.thorough else 1.0
    mixed = jitted(_mixup, "alpha")(case.key, x, float(alpha))
    values = finite(mixed, x.shape, x.dtype, 0, 1, slack=0)
    least, most = (np.float64(f(np.asarray(x), axis=0)) for f in (np.min, np.max))
    slack = case.eps
    assert (least - slack <= values).all() and (values <= most + slack).all()
    if len(x) == 1:
        close(values, x, 0, slack)
    probs = jnp.asarray(case.rng.dirichlet(np.ones(case.shape[2]), len(x)), x.dtype)
    labels = jitted(_mix_labels, "alpha")(case.key, probs, float(alpha))
    labels = finite(labels, probs.shape, jnp.float32, 0, 1)
    close(labels.sum(1), np.ones(len(x)), 0, 1e-6 + 2 * case.shape[2] * slack)
    perturbed = jitted(_mixup, "alpha")(case.key, probs, float(alpha))  # like inputs
    close(perturbed, labels, 0, slack)
    share, other = jitted(_mixup_pairs, "size", "alpha")(case.key, len(x), float(alpha))
    finite(share, (), jnp.float32, 0, 1, slack=0)
    assert sorted(np.asarray(other).tolist()) == list(range(len(x)))
    mixed, of_labels = jitted(_mix_batch, "alpha")(case.key, x, probs, float(alpha))
    values = finite(mixed, x.shape, None, 0, 1, slack=slack)
    close(values, share * x + (1 - share) * x[other], 0, 4 * slack)
    close(of_labels, share * probs + (1 - share) * probs[other], 0, 4 * slack)


def _gaussian(key, x, step_size):
    return perturbations.gaussian(key, None, x, step_size=step_size)


def _mixup(key, x, alpha):
    return perturbations.mixup(key, None, x, mixup_alpha=alpha)


def _mix_labels(key, probs, alpha):
    return perturbations.mix_labels(key, probs, mixup_alpha=alpha)


def _mix_batch(key, x, probs, alpha):
    batch = {"image": x, "label": probs}
    image, of_labels = perturbations.mix_batch(key, batch, mixup_alpha=alpha)
    return image, of_labels(lambda label: label)


def _mixup_pairs(key, size, alpha):
    return perturbations.mixup_pairs(key, size, mixup_alpha=alpha)


@covers(perturbations.ods, perturbations.conf_ods)
def check_ods(case):
    x, tau = case.images(case.shape[1]), case.temperature
    arrays = linear_members(case, 1, len(x))
    for name in ("ods", "conf_ods"):
        perturbed = jitted(_ods, "name")(case.key, x, arrays, case.step_size, tau, name)
        logits = logits_of(arrays)(x)[0]
        confidence = np.exp(np.float64(losses.log_probs(logits, tau))).max(-1)
        is_sure = np.isfinite(np.float64(logits)).all(-1)
        is_scaled = is_sure & (name == "conf_ods")
        check_perturbed(case, x, perturbed, np.where(is_scaled, confidence + 1e-3, 1))
        if not np.any(np.float64(arrays[1])):  # nothing depends on x
            np.testing.assert_array_equal(perturbed, x)


def _ods(key, x, arrays, step_size, temperature, name):
    function = getattr(perturbations, name)
    return function(
        key,
        lambda x: logits_of(arrays)(x)[0],
        x,
        step_size=step_size,
        temperature=temperature,
    )


@covers(perturbations.disagreement)
def check_disagreement(case):
    m, b, k = case.shape
    x, tau = case.images(b), case.temperature
    arrays = base, weights = linear_members(case, m, b)
    order = case.rng.permutation(k)
    quantity = str(case.rng.choice(list(perturbations.QUANTITIES)))
    num_steps = int(case.rng.choice([1, 2]))

    def move(arrays):
        step = jitted(_disagreement, "quantity", "num_steps")
        return step(case.key, x, arrays, case.step_size, tau, quantity, num_steps)

    if m == 1:
        with pytest.raises(InputError, match="at least 2 members"):
            move(arrays)
        return
    perturbed = move(arrays)
    check_perturbed(case, x, perturbed)
    if case.is_smooth and quantity != "projection" and np.abs(weights).max() < 100:
        slack = 1e-2 * case.step_size + 1e-6
        close(move((base[::-1], weights[::-1])), perturbed, 0, slack)
        close(move((base[..., order], weights[..., order])), perturbed, 0, slack)


def _disagreement(key, x, arrays, step_size, temperature, quantity, num_steps):
    return perturbations.disagreement(
        key,
        logits_of(arrays),
        x,
        step_size=step_size,
        temperature=temperature,
        quantity=quantity,
        num_steps=num_steps,
    )


@covers(perturbations.tdiv_sdiv)
def check_tdiv_sdiv(case):
    x = case.images(case.shape[1])
    arrays = linear_members(case, 2, len(x))
    own = linear_members(case, 2, len(x))
    for student in (None, own, arrays):
        perturbed = jitted(_tdiv_sdiv)(case.key, x, arrays, student, case.step_size)
        check_perturbed(case, x, perturbed)


def _tdiv_sdiv(key, x, arrays, student, step_size):
    def pairs(x):
        return logits_of(arrays)(x), None if student is None else logits_of(student)(x)

    return perturbations.tdiv_sdiv(key, pairs, x, step_size=step_size)


def make_teachers(arrays):
    """Returns a record like `edp.ensemble.Teachers`."""

    def all_logits(x, members_at_once=None):
        del members_at_once
        return logits_of(arrays)(x)

    return types.SimpleNamespace(
        num_members=len(arrays[0]),
        all_logits=all_logits,
        member_logits=lambda m, x: all_logits(x)[m],
    )


@covers(perturbations.create_perturbation, perturbations.methods)
def check_created(case):
    m, b, _ = case.shape
    x, arrays = case.images(b), linear_members(case, m, b)
    names = ["ods", "disagreement"]
    if case.thorough:
        names = case.rng.choice(list(perturbations.PERTURBATIONS), 2)
    for name in (names[0], "+".join(names)):
        found = perturbations.methods(name)
        wanted = [perturbations.PERTURBATIONS[part] for part in name.split("+")]
        assert found == wanted
        if m == 1 and any(method.compares_members for method in found):
            with pytest.raises(InputError, match="at least 2 members"):
                _created(case.key, x, arrays, case.step_size, name)
            continue
        perturbed = jitted(_created, "name")(case.key, x, arrays, case.step_size, name)
        finite(perturbed, x.shape, x.dtype, 0, 1, slack=0)
        if not {"gaussian", "mixup"} & set(name.split("+")):
            check_perturbed(case, x, perturbed, len(found))
    with pytest.raises(InputError, match=r"perturbation='\w+\+other' is not known"):
        perturbations.methods(f"{names[0]}+other")


def _created(key, x, arrays, step_size, name):
    perturb = perturbations.create_perturbation(
        {"perturbation": name, "step_size": step_size, "quantity": "variance"}
    )
    return perturb(key, x, make_teachers(arrays))


@covers(
    perturbations.no_members,
    perturbations.random_member,
    perturbations.members,
    perturbations.member_pair,
    perturbations.check_num_members,
    perturbations.check_random_members,
    perturbations.check_differentiable,
)
def check_member_selection(case):
    m, b, k = case.shape
    x, arrays = case.images(b), linear_members(case, m, b)
    every = np.float64(logits_of(arrays)(x))
    teachers = make_teachers(arrays)
    perturbations.check_differentiable("ods", teachers)
    with pytest.raises(InputError, match=r"accepted: none, gaussian, mixup$"):
        no_gradients = types.SimpleNamespace(differentiable=False)
        perturbations.check_differentiable("ods", no_gradients)

    def are_of_members(found):
        rows = np.float64(found).reshape(-1, b, k)
        assert all((row == every).all((1, 2)).any() for row in rows)
        return len(rows)

    if not np.isfinite(every).all():  # weights too large for float16
        return
    assert perturbations.no_members(case.key, teachers, None) is None
    one = perturbations.random_member(case.key, teachers, None)(x)
    assert one.shape == (b, k) and are_of_members(one) == 1
    assert are_of_members(perturbations.members(case.key, teachers, None)(x)) == m
    if m == 1:
        with pytest.raises(InputError, match="at least 2 members"):
            perturbations.member_pair(case.key, teachers, None)
    else:
        pair, none = perturbations.member_pair(case.key, teachers, None)(x)
        assert are_of_members(pair) == 2 and none is None
        _, own = perturbations.member_pair(case.key, teachers, logits_of(arrays))(x)
        np.testing.assert_array_equal(own, pair)
    settings = {"perturbation": "disagreement", "random_members": None}
    if m > 1:
        perturbations.check_num_members("mine", settings, m)
    else:
        with pytest.raises(InputError, match=r"accepted: none, .*, or more"):
            perturbations.check_num_members("mine", settings, m)
    for number in range(-1, m + 2):
        if 2 <= number <= m:
            perturbations.check_random_members("random_members", number, m)
            sample = perturbations.members(
                case.key, teachers, None, random_members=number
            )
            assert are_of_members(sample(x)) == number
        else:
            with pytest.raises(InputError, match=f"random_members={number} is out of"):
                perturbations.check_random_members("random_members", number, m)
