"""Bound perturbations, mixup, sequences and unknown names."""

import functools
import inspect
import re

import chex
import documents
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_members import FakeTeachers, inputs, mlp_members

from edp import perturbations
from edp.errors import InputError


@pytest.mark.parametrize("name", sorted(perturbations.PERTURBATIONS))
def test_bound_perturbations(name):
    all_logits, x = mlp_members(3), inputs()
    teachers = FakeTeachers(3, all_logits, lambda m, x: all_logits(x)[m])
    config = {"perturbation": name, "step_size": 0.01, "num_steps": 2, "alpha": 0.9}
    perturb = perturbations.create_perturbation(config)
    perturbed = jax.jit(lambda k, x: perturb(k, x, teachers))(jax.random.key(0), x)
    again = jax.jit(lambda k, x: perturb(k, x, teachers))(jax.random.key(0), x)
    np.testing.assert_array_equal(perturbed, again)
    assert (perturbed == x).all() == (name == "none")
    if name == "none":
        assert perturb(jax.random.key(0), x, teachers) is x
    read = []

    def student(x):
        read.append(x)
        return all_logits(x)

    jax.eval_shape(lambda k, x: perturb(k, x, teachers, student), jax.random.key(0), x)
    assert bool(read) == perturbations.PERTURBATIONS[name].uses_student


def test_random_members_are_distinct_and_sampled_per_call():
    logits_fn = mlp_members(4)
    teachers = FakeTeachers(4, logits_fn, lambda m, x: logits_fn(x)[m])
    config = {"perturbation": "disagreement", "step_size": 0.02}
    perturb = perturbations.create_perturbation({**config, "random_members": 2})
    perturb, x = jax.jit(perturb, static_argnums=2), inputs()
    pairs = [(i, j) for i in range(4) for j in range(i)]
    one_step = functools.partial(perturbations.disagreement, step_size=0.02)
    one_step = jax.jit(one_step, static_argnums=1)
    candidates = [  # the variance of two does not depend on their order
        one_step(jax.random.key(0), lambda x, p=p: logits_fn(x)[jnp.array(p)], x)
        for p in pairs
    ]
    found = set()
    for seed in range(24):
        perturbed = perturb(jax.random.key(seed), x, teachers)
        errors = [float(jnp.abs(perturbed - step).max()) for step in candidates]
        assert min(errors) < 1e-6
        found.add(int(np.argmin(errors)))
    assert len(found) > 3

    of_all = perturbations.create_perturbation({**config, "random_members": 4})
    all_of = perturbations.create_perturbation(config)
    key = jax.random.key(1)
    chex.assert_trees_all_equal(of_all(key, x, teachers), all_of(key, x, teachers))
    for number in (0, 1, 5):
        refused = perturbations.create_perturbation(
            {**config, "random_members": number}
        )
        with pytest.raises(InputError, match=f"random_members={number}.*2 to.*4"):
            refused(key, x, teachers)


def test_members_that_are_compared_are_several():
    one = FakeTeachers(1, lambda x: x[None], lambda m, x: x)
    key, x = jax.random.key(0), jnp.ones((2, 3)) / 2
    for name, method in perturbations.PERTURBATIONS.items():
        config = {"perturbation": f"gaussian+{name}", "step_size": 0.1}
        perturb = perturbations.create_perturbation(config)
        if not method.compares_members:
            perturbations.check_num_members("mine", {**config, "random_members": 2}, 1)
            perturbed = jax.eval_shape(lambda k, p=perturb: p(k, x, one), key)
            chex.assert_equal_shape([perturbed, x])
            continue
        with pytest.raises(InputError, match=f"mine.perturbation='gaussian.{name}'"):
            perturbations.check_num_members("mine", config, 1)
        with pytest.raises(InputError, match=r"accepted: .*at least 2 members"):
            perturb(key, x, one)
        perturbations.check_num_members("mine", config, 2)


def test_ods_samples_every_member():
    seen = set()
    teachers = FakeTeachers(4, None, lambda m, x: seen.add(int(m)) or x)
    perturb = perturbations.create_perturbation(
        {"perturbation": "ods", "step_size": 0.1}
    )
    for seed in range(40):
        perturb(jax.random.key(seed), inputs(batch=2, shape=(3,)), teachers)
    assert seen == {0, 1, 2, 3}


def test_mixup_lies_between_two_inputs_of_the_batch():
    x = inputs(batch=6)
    perturbed = perturbations.mixup(jax.random.key(0), None, x)
    flat, ends = perturbed.reshape(6, -1), x.reshape(6, -1)
    partners, shares = [], []
    for i in range(6):
        fits = []
        for j in range(6):
            if i == j:
                continue
            line = ends[i] - ends[j]
            share = jnp.vdot(flat[i] - ends[j], line) / jnp.vdot(line, line)
            error = jnp.abs(share * ends[i] + (1 - share) * ends[j] - flat[i]).max()
            fits.append((float(error), j, float(share)))
        error, j, share = min(fits)
        assert error < 1e-6
        shares.append(share)
        partners.append(i if abs(share - 1) < 1e-6 else j)
    assert sorted(partners) == list(range(6))  # each is a partner once
    assert all(0 <= share <= 1 + 1e-6 for share in shares)
    assert len({round(share, 4) for share in shares}) > 3  # one λ per example
    alone = perturbations.mixup(jax.random.key(0), None, x[:1])
    np.testing.assert_allclose(alone, x[:1], atol=1e-6)


@pytest.mark.parametrize(("alpha", "mean_square"), [(1.0, 1 / 12), (0.2, 1 / 5.6)])
def test_mixup_samples_its_weights_from_a_beta_distribution(alpha, mean_square):
    x = jnp.arange(2000.0).reshape(-1, 1) % 2  # half of the pairs are one 0, one 1
    perturbed = perturbations.mixup(jax.random.key(1), None, x, mixup_alpha=alpha)
    mixed = perturbed[(perturbed > 0) & (perturbed < 1)]
    assert abs(len(mixed) - 1000) < 100
    # The variance of Beta(a, a) is 1 / (4 (2 a + 1)).
    assert float(jnp.square(mixed - 0.5).mean()) == pytest.approx(mean_square, rel=0.1)
    keys = jax.random.split(jax.random.key(2), 2000)
    draw = functools.partial(perturbations.mixup_pairs, batch_size=3, mixup_alpha=alpha)
    shares, pairs = jax.vmap(draw)(keys)  # one share per batch
    assert float(jnp.square(shares - 0.5).mean()) == pytest.approx(mean_square, rel=0.1)
    assert len(np.unique(np.asarray(pairs), axis=0)) == 6  # permutations of 3


def test_labels_are_mixed_as_the_inputs_are_by_hand():
    key = jax.random.key(1)
    share_key, order_key = jax.random.split(key)
    a, b, c = np.float64(jax.random.beta(share_key, 0.5, 0.5, (3,)))
    np.testing.assert_array_equal(jax.random.permutation(order_key, 3), [2, 0, 1])
    labels = perturbations.mix_labels(key, jnp.eye(3), mixup_alpha=0.5)
    expected = [[a, 0, 1 - a], [1 - b, b, 0], [0, 1 - c, c]]
    np.testing.assert_allclose(labels, expected, atol=1e-7)
    x = jnp.array([[0.0], [0.5], [1.0]])
    perturbed = perturbations.mixup(key, None, x, mixup_alpha=0.5)
    expected = [[1 - a], [b / 2], [(1 - c) / 2 + c]]
    np.testing.assert_allclose(perturbed, expected, atol=1e-7)
    # Mixing equal labels changes nothing, in any dtype.
    for dtype in (jnp.float16, jnp.float32):
        same = perturbations.mix_labels(key, jnp.eye(4, dtype=dtype)[jnp.ones(3, int)])
        np.testing.assert_allclose(same, jnp.eye(4)[jnp.ones(3, int)], atol=1e-7)
        assert same.dtype == jnp.float32


def test_mixtures_are_the_same_in_double_precision():
    key, x = jax.random.key(4), jnp.eye(3)
    single = perturbations.mixup(key, None, x)
    with jax.enable_x64(True):
        double = perturbations.mixup(key, None, jnp.eye(3, dtype=jnp.float64))
        assert double.dtype == jnp.float64
    np.testing.assert_allclose(double, single, atol=1e-7)


def test_properties_survive_jit_wraps_and_sequences():
    def create(name):
        return perturbations.create_perturbation(
            {"perturbation": name, "step_size": 0.1, "mixup_alpha": 0.5}
        )

    for name in [*perturbations.PERTURBATIONS, "none+none", "none+ods", "ods+mixup"]:
        perturb, parts = create(name), set(name.split("+"))
        for fn in (perturb, jax.jit(perturb), functools.wraps(perturb)(lambda *a: a)):
            assert fn.identity == (parts == {"none"})
            assert (fn.mix_labels is not None) == ("mixup" in parts)
    key, probs = jax.random.key(3), jnp.eye(5)
    first, second = jax.random.split(key)
    one = create("mixup").mix_labels
    np.testing.assert_array_equal(
        create("ods+mixup").mix_labels(key, probs), one(second, probs)
    )
    both = create("mixup+mixup").mix_labels(key, probs)
    np.testing.assert_array_equal(both, one(second, one(first, probs)))
    assert (both != one(second, probs)).any()


def test_joined_perturbations_apply_in_sequence():
    all_logits, x = mlp_members(3), inputs(batch=5)
    teachers = FakeTeachers(3, all_logits, lambda m, x: all_logits(x)[m])
    config = {"perturbation": "mixup+disagreement", "step_size": 0.01}
    joined = perturbations.create_perturbation(config)
    one, two = (
        perturbations.create_perturbation({**config, "perturbation": name})
        for name in ("mixup", "disagreement")
    )
    key = jax.random.key(3)
    first, second = jax.random.split(key)
    expected = two(second, one(first, x, teachers), teachers)
    np.testing.assert_array_equal(joined(key, x, teachers), expected)
    assert (expected != one(first, x, teachers)).any()
    plain = perturbations.create_perturbation({"perturbation": "none+none"})
    assert plain(key, x, teachers) is x


def test_unknown_names_are_refused():
    for name in ("odds", "mixup+odds", "ods+", ""):
        with pytest.raises(InputError, match=rf"perturbation='{re.escape(name)}'.*ods"):
            perturbations.create_perturbation({"perturbation": name})
    with pytest.raises(InputError, match="mixup_alpha=0"):
        perturbations.mixup(jax.random.key(0), None, inputs(), mixup_alpha=0)
    with pytest.raises(InputError, match="mixup_alpha=0"):
        perturbations.mix_labels(jax.random.key(0), jnp.eye(2), mixup_alpha=0)
    batch = {"image": jnp.zeros((2, 4, 4, 1), jnp.uint8), "label": jnp.arange(2)}
    with pytest.raises(InputError, match="dtype uint8"):
        perturbations.mix_batch(jax.random.key(0), batch, mixup_alpha=1)
    with pytest.raises(InputError, match=r"quantity='var'.*variance"):
        perturbations.disagreement(
            jax.random.key(0), mlp_members(2), inputs(), step_size=0.1, quantity="var"
        )
    with pytest.raises(InputError, match="num_steps=0"):
        perturbations.disagreement(
            jax.random.key(0), mlp_members(2), inputs(), step_size=0.1, num_steps=0
        )


def test_the_page_shows_the_signatures():
    page = (documents.ROOT / "docs/api/perturbations.md").read_text("utf-8")
    rows = re.findall(r"^\| \[`(\w+)`\]\(\S+/(\w+)\.py\) \| (\S.*?) \|", page, re.M)
    assert [row[0] for row in rows] == list(perturbations.PERTURBATIONS)
    for name, file, shown in rows:
        fn = perturbations.PERTURBATIONS[name].fn
        assert fn.__module__ == f"edp.perturbations.{file}"
        keywords = [
            p.name if p.default is p.empty else f"{p.name}={p.default!r}"
            for p in inspect.signature(fn).parameters.values()
            if p.kind is p.KEYWORD_ONLY and p.name not in ("clip", "scale")
        ]
        assert (re.findall("`(.*)`", shown) or [""])[0] == ", ".join(keywords)
