"""Kinds of student against formulas and hand-computed values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edp import distill, losses, models, students
from edp.ensemble import Teachers
from edp.errors import InputError
from edp.models.layers import Dense
from edp.runtime import optimizers
from edp.students import dirichlet_math as distributions
from edp.students.dirichlet import annealed
from edp.students.hydra import head_similarity
from edp.students.student import DistillBatch

M, B, K = 3, 5, 4
STEPS = 10
SETTINGS = {
    **{"alpha": 0.7, "temperature": 2.0, "hydra_single_share": 0.4},
    **{"dirichlet_start_temperature": 5.0, "dirichlet_annealing": (0.2, 0.6)},
    **{"functional_sigma": 0.5, "functional_samples": 2, "functional_teachers": None},
    **{"functional_inference_samples": 4, "mimo_repetitions": 1, "packed_alpha": 1.5},
    **{"bridge_steps": 3, "bridge_one_step_share": 0.5, "bridge_betas": (0.1, 0.2)},
    **{"bridge_width": 8, "flow_width": 8, "flow_samples": 4},
}
X = jax.random.uniform(jax.random.key(0), (B, 6, 6, 1))
LABEL = jnp.arange(B) % K


class Net(models.Classifier):
    """The smallest network with all kinds of layers."""

    def feature_maps(self, x, conv, norm, drop):
        return jax.nn.relu(norm(name="norm")(conv(self.channels(3), name="conv")(x)))


build_model = functools.partial(Net, num_classes=K, mean=(0.5,), std=(0.25,))


def create(kind, **settings):
    return students.create_student(
        {"student": kind, **SETTINGS, **settings},
        build_model,
        num_members=M,
        training_steps=STEPS,
    )


def initial(student, spread=0.0):
    """Returns initial variables, with positive noise of scale `spread`² added."""
    variables = jax.jit(student.init)(jax.random.key(1), X[:1])
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(0)
    leaves = [x + spread * rng.normal(size=x.shape).astype("f") ** 2 for x in leaves]
    return jax.tree.unflatten(tree, leaves)


def teachers(seed=0):
    """Returns logits of different members [M, B, K]."""
    return 2 * jax.random.normal(jax.random.key(seed), (M, B, K))


def make_batch(teacher_logits, step=0):
    return DistillBatch(X, LABEL, None, teacher_logits, jnp.int32(step))


def gradient(student):
    """Returns (variables, batch) -> the mean loss over the batch and its gradient."""

    def loss(params, variables, batch):
        variables = {**variables, "params": params}
        return student.loss(variables, batch, jax.random.key(2))[0].mean()

    compiled = jax.jit(jax.value_and_grad(loss))
    return lambda variables, batch: compiled(variables["params"], variables, batch)


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol, atol), a, b)


@pytest.mark.parametrize("kind", sorted(students.STUDENTS))
def test_labels_may_be_distributions(kind):
    student = create(kind, dirichlet_loss="mle", factor_init="normal")
    variables = initial(student)

    def loss(label):
        batch = make_batch(teachers())._replace(label=label)
        total, (_, metrics) = student.loss(variables, batch, jax.random.key(2))
        return total, metrics

    certain = jax.nn.one_hot(LABEL, K)
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(loss, certain))
    assert shapes == jax.tree.map(jnp.shape, jax.eval_shape(loss, LABEL))
    assert shapes[0] == (B,)


@pytest.mark.parametrize(
    "kind",
    ["single", "batch_ensemble", "latent_batch_ensemble", "hydra", "mimo", "packed"],
)
def test_label_smoothing_is_a_mixture_with_the_uniform_distribution(kind):
    plain = create(kind, factor_init="normal")
    smooth = create(kind, factor_init="normal", label_smoothing=0.2)
    variables = initial(plain)
    batch = make_batch(teachers())
    mixed = batch._replace(label=0.8 * jax.nn.one_hot(LABEL, K) + 0.2 / K)
    expected, (_, terms) = plain.loss(variables, mixed, jax.random.key(2))
    found, (_, found_terms) = smooth.loss(variables, batch, jax.random.key(2))
    assert_close(found, expected)
    without, _ = plain.loss(variables, batch, jax.random.key(2))
    assert np.abs(found - without).max() > 1e-3
    assert_close(found_terms["distillation_loss"], terms["distillation_loss"])


def test_accuracy_on_distributions_by_hand():
    logits = jnp.array([[[1.0, 2.0, 0.0]] * 2, [[3.0, 2.0, 0.0]] * 2])  # 1; then 0
    labels = jnp.array([[0.3, 0.6, 0.1], [0.0, 0.0, 1.0]])
    found = losses.accuracy(logits, labels)
    np.testing.assert_allclose(found, [[0.6, 0.0], [0.3, 0.0]])
    found = losses.accuracy(logits, jnp.array([1, 0]))
    np.testing.assert_array_equal(found, [[True, False], [False, True]])


# --- A latent BatchEnsemble ---------------------------------------------------


def test_the_average_of_two_members_weights_by_hand():
    layer = Dense(features=2, num_members=2, shared_bias=True)
    params = {
        "kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]]),
        "bias": jnp.array([0.5, -0.5]),
        "r": jnp.array([[1.0, 2.0], [3.0, 4.0]]),  # the mean is 2, 3
        "s": jnp.array([[1.0, -1.0], [0.0, 3.0]]),  # the mean is 0.5, 1
    }
    plain = models.average_factors({"layer": params})["layer"]
    assert plain.keys() == {"kernel", "bias"}
    # [[1 · 2 · 0.5, 2 · 2 · 1], [3 · 3 · 0.5, 4 · 3 · 1]]
    np.testing.assert_allclose(plain["kernel"], [[1.0, 4.0], [4.5, 12.0]])
    x = jnp.array([[1.0, 1.0]])
    out = Dense(features=2).apply({"params": plain}, x)
    np.testing.assert_allclose(out, [[6.0, 15.5]])
    # Member 1 by itself, its bias shared: [3, 4] · [[1, 2], [3, 4]] · [0, 3] + bias.
    rows = layer.apply({"params": params}, jnp.repeat(x, 2, axis=0))
    np.testing.assert_allclose(rows[1], [0.5, 65.5])


def test_factors_of_one_are_the_plain_network():
    latent, single = create("latent_batch_ensemble"), create("single")
    variables = initial(latent)
    finished = latent.finalise(variables)
    shapes = jax.eval_shape(single.init, jax.random.key(0), X[:1])
    assert jax.tree.structure(finished) == jax.tree.structure(shapes)
    assert jax.tree.map(jnp.shape, finished) == jax.tree.map(jnp.shape, shapes)
    plain = build_model().apply(finished, X, train=False)
    settings = {"num_members": M, "factor_init": "ones", "shared_bias": True}
    members = build_model(**settings).apply(variables, X, train=False)
    assert members.shape == (M, B, K)
    for logits in members:
        np.testing.assert_allclose(logits, plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        latent.predict(finished, X), single.predict(finished, X), atol=1e-7
    )


def test_a_finished_latent_batch_ensemble_has_the_averaged_weights():
    latent, single = create("latent_batch_ensemble"), create("single")
    variables = initial(latent, spread=0.3)
    finished = jax.jit(latent.finalise)(variables)
    for name in ("conv", "head"):
        layer = variables["params"][name]
        assert np.ptp(layer["r"], axis=0).min() > 0.001  # the members differ
        kernel = np.array(layer["kernel"])
        for c in range(kernel.shape[-2]):
            for f in range(kernel.shape[-1]):
                mean_r = sum(layer["r"][m, c] for m in range(M)) / M
                mean_s = sum(layer["s"][m, f] for m in range(M)) / M
                kernel[..., c, f] *= mean_r * mean_s
        np.testing.assert_allclose(
            finished["params"][name]["kernel"], kernel, rtol=1e-5
        )
    probs = latent.predict(finished, X)
    assert probs.shape == (1, B, K) and latent.inference_cost == 1
    np.testing.assert_allclose(probs, single.predict(finished, X), atol=1e-6)


def test_subnetworks_diverge_towards_their_teachers():
    student = create("latent_batch_ensemble")
    variables = initial(student)
    loss_and_grad = gradient(student)
    _, grads = loss_and_grad(variables, make_batch(teachers()))
    _, reversed_grads = loss_and_grad(variables, make_batch(teachers()[::-1]))
    for name in ("r", "s"):
        factors = grads["head"][name]
        assert np.abs(factors[0] - factors[1]).max() > 1e-3
        assert_close(factors[::-1], reversed_grads["head"][name])


def test_factors_decay_to_one_and_learn_as_members_alone_by_hand():
    config = {
        **{"schedule": "constant", "learning_rate": 0.1, "num_epochs": 1},
        **{"momentum": 0.0, "nesterov": False, "weight_decay": 0.01},
    }
    student = create("latent_batch_ensemble")
    tx = optimizers.create_optimizer(config, 5, student.rule)
    params = {"kernel": jnp.array(2.0), "r": jnp.array([[3.0], [0.5]])}
    grads = {"kernel": jnp.array(1.0), "r": jnp.array([[1.0], [-1.0]])}
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * (1 + 0.01 * 2), rtol=1e-6)
    # M = 2 times (gradient + 0.01 / M (r - 1)).
    by_hand = [[-0.1 * 2 * (1 + 0.005 * 2)], [-0.1 * 2 * (-1 - 0.005 * 0.5)]]
    np.testing.assert_allclose(updates["r"], by_hand, rtol=1e-6)

    def decay(params):  # the documented regulariser
        away = (jnp.square(1 - params["r"])).sum()
        return 0.01 * (params["kernel"] ** 2 / 2 + away / (2 * 2))

    grads = jax.tree.map(jnp.add, grads, jax.grad(decay)(params))
    expected = {"kernel": -0.1 * grads["kernel"], "r": -0.1 * 2 * grads["r"]}
    assert_close(updates, expected)


# --- Hydra --------------------------------------------------------------------


def train(student, num_steps):
    """Returns the states of the first few training steps."""
    config = {
        **{"schedule": "constant", "learning_rate": 0.1, "num_epochs": 1},
        **{"momentum": 0.9, "nesterov": False, "weight_decay": 0.01},
    }
    tx = optimizers.create_optimizer(config, STEPS, student.rule)
    teachers_fn = lambda x: teachers()  # noqa: E731
    step = jax.jit(
        functools.partial(
            distill.distill_step,
            student=student,
            teachers=Teachers(M, teachers_fn, None),
            perturb=lambda key, x, teachers, predict: x,
            tx=tx,
        )
    )
    state = distill.create_state(student, tx, jax.random.key(1), X[:1])
    states = [state]
    for _ in range(num_steps):
        state, _ = step(state, {"image": X, "label": LABEL}, jax.random.key(2))
        states.append(state)
    return states


def test_hydra_trains_as_single_until_its_heads_separate():
    states = train(create("hydra"), 6)
    for alone, state in zip(train(create("single"), 4), states, strict=False):
        # For four of ten steps, the body and each head equal those of `single`.
        heads = state.params["head"]
        for leaf in jax.tree.leaves(heads):
            np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[0], leaf.shape))
        first = {**state.params, "head": jax.tree.map(lambda x: x[0], heads)}
        assert_close(first, alone.params)
    kernels = states[5].params["head"]["kernel"]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


def test_equal_heads_and_teachers_are_a_single_student():
    student, single = create("hydra"), create("single")
    variables = initial(student)
    plain = initial(single)  # from the same key
    assert_close(
        jax.tree.map(lambda x: x[0], variables["params"]["head"]),
        plain["params"]["head"],
    )
    probs = student.predict(variables, X)
    assert probs.shape == (M, B, K)
    for member in probs:
        np.testing.assert_allclose(member, single.predict(plain, X)[0], rtol=1e-5)
    same = jnp.broadcast_to(teachers()[0], (M, B, K))
    key = jax.random.key(2)
    loss, expected = (jax.jit(s.loss) for s in (student, single))
    for step in (0, STEPS - 1):
        batch = make_batch(same, step)
        assert_close(loss(variables, batch, key)[0], expected(plain, batch, key)[0])


def test_separate_heads_match_one_to_one_by_formula():
    student = create("hydra", alpha=1.0)
    variables = initial(student, spread=0.3)
    loss, grads = gradient(student)(variables, make_batch(teachers(), STEPS - 1))
    model = build_model(num_heads=M)
    logits, _ = model.apply(variables, X, train=True, mutable=["batch_stats"])
    p, q = (np.exp(jax.nn.log_softmax(z / 2.0)) for z in (teachers(), logits))
    kl = (p * (np.log(p) - np.log(q))).sum(-1)
    np.testing.assert_allclose(loss, 4 * kl.mean(), rtol=1e-4)
    # d/dz of 4 · mean KL is 2 (q - p) / (M B), summed over the batch.
    by_hand = 2 * (q - p).sum(axis=1) / (M * B)
    np.testing.assert_allclose(grads["head"]["bias"], by_hand, rtol=1e-3, atol=1e-6)


def test_the_terms_of_hydra_plus_by_formula():
    plain = create("hydra", alpha=1.0)
    plus = create("hydra", alpha=1.0, hydra_mean_share=0.25, hydra_diversity=0.5)
    variables = initial(plain, spread=0.3)
    batch = make_batch(teachers(), STEPS - 1)
    key = jax.random.key(2)
    expected, _ = plain.loss(variables, batch, key)
    found, (_, metrics) = plus.loss(variables, batch, key)
    model = build_model(num_heads=M)
    logits, _ = model.apply(variables, X, train=True, mutable=["batch_stats"])
    p, q = (np.exp(jax.nn.log_softmax(z / 2.0)).mean(0) for z in (teachers(), logits))
    of_mean = 4 * (p * (np.log(p) - np.log(q))).sum(-1)
    kernels = np.asarray(variables["params"]["head"]["kernel"], np.float64)
    similarity = 0
    for head in kernels:
        for w, mean in zip(head.T, kernels.mean(axis=0).T, strict=True):
            cosine = w @ mean / np.linalg.norm(w) / np.linalg.norm(mean)
            similarity += (1 + cosine) / 2
    assert similarity < M * K - 0.1
    np.testing.assert_allclose(metrics["head_similarity"], similarity, rtol=1e-4)
    expected = 0.75 * expected + 0.25 * of_mean + 0.5 * similarity
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    # While the heads train as one, nothing is added.
    variables, batch = initial(plain), make_batch(teachers(), 0)
    both = (student.loss(variables, batch, key)[0] for student in (plain, plus))
    assert_close(*both)


def test_the_similarity_of_two_heads_by_hand():
    orthogonal = jnp.array([[[1.0], [0.0]], [[0.0], [1.0]]])
    # Each has a cosine of 1 / √2 with the mean.
    found = head_similarity(orthogonal)
    np.testing.assert_allclose(found, 1 + 1 / np.sqrt(2), rtol=1e-6)
    equal = jnp.broadcast_to(jnp.array([[3.0, 1.0], [4.0, 1.0]]), (3, 2, 2))
    np.testing.assert_allclose(head_similarity(equal), 3 * 2, rtol=1e-6)
    assert np.isfinite(jax.grad(head_similarity)(jnp.zeros((2, 3, 4)))).all()


# --- A Dirichlet distribution -------------------------------------------------


def test_dirichlet_is_annealed_to_the_likelihood_at_temperature_1():
    student = create("dirichlet", dirichlet_loss="mle")
    variables = initial(student)
    logits, _ = build_model().apply(variables, X, train=True, mutable=["batch_stats"])
    expected = jax.jit(distributions.negative_log_likelihood)
    # From 5 after 2 of 10 steps to 1 after 6.
    for step, temperature in ((0, 5), (2, 5), (3, 4), (5, 2), (6, 1), (9, 1)):
        assert annealed(jnp.int32(step), STEPS, 5.0, (0.2, 0.6)) == temperature
    loss = jax.jit(student.loss)
    for step, temperature in ((3, 4.0), (9, 1.0)):
        values, _ = loss(variables, make_batch(teachers(), step), jax.random.key(2))
        assert_close(values, expected(logits, teachers(), temperature))


@pytest.mark.parametrize(("name", "more"), [("mle", 0), ("proxy", 1)])
def test_dirichlet_predicts_its_mean_and_uncertainties(name, more):
    student = create("dirichlet", dirichlet_loss=name)
    variables = initial(student)
    alpha = np.exp(build_model().apply(variables, X, train=False)) + more
    mean = alpha / alpha.sum(-1, keepdims=True)
    np.testing.assert_allclose(student.predict(variables, X), mean[None], rtol=1e-5)
    scores = student.uncertainty(variables, X)
    assert_close(scores["pairwise_kl"], (K - 1) / alpha.sum(-1))
    of_both = scores["expected_entropy"] + scores["mutual_information"]
    assert_close(of_both, scores["predictive_entropy"])


def test_dirichlet_learns_from_perturbed_inputs():
    student = create("dirichlet", dirichlet_loss="proxy")
    variables = initial(student)
    batch = make_batch(teachers())
    perturbed = batch._replace(image=1 - X, perturbed=X)
    loss = jax.jit(lambda *args: student.loss(*args, jax.random.key(2))[0])
    assert_close(loss(variables, perturbed), loss(variables, batch))


def test_an_unknown_loss_of_dirichlet():
    with pytest.raises(
        InputError, match="dirichlet_loss='mel' is not known; accepted: mle, pr"
    ):
        create("dirichlet", dirichlet_loss="mel")


# --- A random input ----------------------------------------------


def test_the_discrepancy_is_the_double_loop():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(size=(3, 8)), rng.uniform(size=(4, 8))

    def mean_kernel(a, b):
        total = 0
        for x in a:
            for y in b:
                distance = sum((x[i] - y[i]) ** 2 for i in range(8))
                total += sum(np.exp(-distance / (2 * s)) for s in (2, 10, 20, 50))
        return total / (len(a) * len(b))

    expected = mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b)
    assert expected > 0.01
    mmd = jax.jit(losses.maximum_mean_discrepancy)
    np.testing.assert_allclose(mmd(a, b), expected, rtol=1e-4)
    assert abs(mmd(a, a[::-1])) < 1e-6
    assert abs(mmd(a[:1], np.repeat(a[:1], 4, axis=0))) < 1e-6


def test_functional_matches_its_samples_to_the_members_over_the_batch():
    student = create("functional")
    variables = initial(student)
    key = jax.random.key(2)
    loss, (state, metrics) = jax.jit(student.loss)(
        variables, make_batch(teachers()), key
    )
    assert loss.shape == metrics["accuracy"].shape == (B,)
    # Each sample is one image for the batch, an extra channel of the input.
    z = 0.5 * jax.random.normal(jax.random.split(key, 3)[0], (2, 6, 6, 1))
    rows = jnp.stack([jnp.concatenate([x, z_s], -1) for x in X for z_s in z])
    inner = {name: tree["network"] for name, tree in variables.items()}
    assert inner["params"]["conv"]["kernel"].shape[2] == 2
    assert variables["params"]["noise_scale"] == 1
    model = build_model(extra_channels=1)
    logits, after = model.apply(inner, rows, train=True, mutable=["batch_stats"])
    assert_close(state["batch_stats"]["network"], after["batch_stats"])
    p = np.exp(jax.nn.log_softmax(teachers())).reshape(M, B * K)
    q = np.exp(jax.nn.log_softmax(logits)).reshape(B, 2, K)
    q = np.stack([q[:, s].reshape(B * K) for s in range(2)])
    np.testing.assert_allclose(loss, losses.maximum_mean_discrepancy(p, q), rtol=1e-4)


def test_functional_samples_the_requested_number_of_teachers():
    student = create("functional", functional_teachers=1)
    variables, loss = initial(student), jax.jit(student.loss)
    keys = jax.random.split(jax.random.key(0), 12)
    values = {float(loss(variables, make_batch(teachers()), k)[0][0]) for k in keys}
    same = jnp.broadcast_to(teachers()[:1], (M, B, K))
    alone = [float(loss(variables, make_batch(same), k)[0][0]) for k in keys]
    # With the same z, a step equals that with the first member alone if it sampled it.
    shared = sum(any(np.isclose(v, a, rtol=1e-6) for v in values) for a in alone)
    assert 0 < shared < len(keys)
    for wrong in (0, M + 1):
        with pytest.raises(InputError, match=f"functional_teachers={wrong} is out of"):
            create("functional", functional_teachers=wrong)


def test_functional_predicts_from_fixed_samples():
    student = create("functional")
    variables = initial(student)
    predict = jax.jit(student.predict)
    probs = predict(variables, X)
    assert probs.shape == (student.num_members, B, K) == (4, B, K)
    assert student.inference_cost == 4
    # Independent of the batch, and different for each sample.
    np.testing.assert_allclose(predict(variables, X[1:2])[:, 0], probs[:, 1], rtol=1e-4)
    assert np.abs(np.diff(probs, axis=0)).max(axis=(1, 2)).min() > 1e-4
