"""Tests counts of operations by hand and by identities, and the costs of a run."""

import functools
import pathlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from edp import models
from edp.evaluation import costs
from edp.experiment.create import create_experiment
from edp.models import cpu_convolution, native
from edp.runtime import flops, stacking
from tests.configs import tiny

SHAPE = jax.ShapeDtypeStruct


def array(*shape):
    return SHAPE(shape, jnp.float32)


def count(fn, *shapes):
    return flops.flops(fn, *(array(*shape) for shape in shapes))


@pytest.fixture(autouse=True)
def _without_compiled_kernels():
    with native.disabled():
        yield


def convolve(x, kernel, strides):
    return cpu_convolution.convolve(x, kernel, strides)


def test_products_by_hand():
    assert count(lambda a, b: a @ b, (3, 4), (4, 5)) == 2 * 3 * 4 * 5
    assert count(jnp.matmul, (7, 3, 4), (7, 4, 5)) == 7 * 2 * 3 * 4 * 5
    assert count(lambda a: jnp.tanh(a) * a + a.sum(), (3, 4)) == 0
    # 16 x 16 images become 8 x 8; each position has 3 x 3 taps of 3 channels.
    strided = functools.partial(convolve, strides=2)
    assert count(strided, (5, 16, 16, 3), (3, 3, 3, 7)) == 2 * 5 * 64 * 7 * 27
    # An odd size and a 1 x 1 kernel.
    assert count(strided, (1, 7, 7, 3), (1, 1, 3, 4)) == 2 * 16 * 12
    grouped = functools.partial(
        lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="SAME",
        feature_group_count=4,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    assert count(grouped, (2, 6, 6, 8), (3, 3, 2, 12)) == 2 * 2 * 36 * 12 * 9 * 2


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize(("size", "taps"), [(8, 3), (7, 3), (8, 1), (7, 1), (2, 3)])
def test_each_gradient_of_a_convolution_costs_as_much_as_the_convolution(
    size, taps, strides
):
    shapes = (4, size, size, 3), (taps, taps, 3, 5)
    fn = functools.partial(convolve, strides=strides)
    forward = count(fn, *shapes)

    def loss(x, kernel):
        return (fn(x, kernel) ** 2).sum()

    with cpu_convolution.plain_gradients():
        for wrt, number in ((0, 1), (1, 1), ((0, 1), 2)):
            grads = count(jax.value_and_grad(loss, wrt), *shapes)
            assert grads == (1 + number) * forward
            # And for each of several members.
            mapped = jax.vmap(jax.value_and_grad(loss, wrt))
            stacked = [(6, *shape) for shape in shapes]
            assert count(mapped, *stacked) == 6 * grads


def test_gradients_on_cpu_count_as_much_without_dilation(monkeypatch):
    shapes = (8, 6, 6, 3), (3, 3, 3, 5)
    loss = lambda x, kernel: convolve(x, kernel, 1).sum()  # noqa: E731
    with cpu_convolution.plain_gradients():
        plain = count(jax.grad(loss, (0, 1)), *shapes)
    for elements in (1_000_000, 6 * 6 * 3):  # in one block, and in a loop of eight
        monkeypatch.setattr(cpu_convolution, "_BLOCK_ELEMENTS", elements)
        assert count(jax.grad(loss, (0, 1)), *shapes) == plain
        with cpu_convolution.plain_gradients():
            assert "scan" not in str(
                jax.make_jaxpr(jax.grad(loss))(*map(jnp.ones, shapes))
            )


def test_loops_branches_and_unused_results():
    product = 2 * 4**3

    def loop(x):
        return lax.scan(lambda c, _: (c @ x, None), x, length=5)[0]

    assert count(loop, (4, 4)) == 5 * product
    assert count(lambda x: lax.fori_loop(0, 3, lambda i, c: c @ c, x), (4, 4)) == (
        3 * product
    )
    assert count(lambda x: lax.map(loop, x), (6, 4, 4)) == 6 * 5 * product
    # The backward pass has the gradients of both factors.
    grad = jax.grad(lambda x: loop(x).sum())
    assert count(grad, (4, 4)) == 3 * 5 * product

    branches = [lambda x: x, lambda x: x @ x @ x, lambda x: x @ x]
    switch = lambda x: lax.switch(x[0, 0].astype(int), branches, x)  # noqa: E731
    assert count(switch, (4, 4)) == 2 * product
    nested = jax.jit(jax.checkpoint(lambda x: jnp.sin(x @ x)))
    assert count(nested, (4, 4)) == product
    # Rematerialised for the gradient; without the loss the first pass is unused.
    loss = lambda x: nested(x).sum()  # noqa: E731
    assert count(jax.value_and_grad(loss), (4, 4)) == 4 * product
    assert count(jax.grad(loss), (4, 4)) == 3 * product
    assert count(lambda x: (x @ x, x)[1], (4, 4)) == 0

    def until(x):
        return lax.while_loop(lambda c: c.sum() > 0, lambda c: c @ c, x)

    with pytest.raises(flops.Uncountable):
        count(until, (4, 4))
    assert count(lambda x: lax.while_loop(jnp.any, lambda c: c - 1, x), (4, 4)) == 0


def test_strategies_count_alike():
    model = models.create_model(
        {"name": "resnet", "depth": 8, "width": 4},
        num_classes=3,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
    )
    x = array(1, 8, 8, 3)
    init = functools.partial(model.init, jax.random.key(0), train=False)
    init_shapes = jax.eval_shape(init, x)
    variables = jax.tree.map(lambda leaf: array(3, *leaf.shape), init_shapes)
    own = [
        flops.flops(
            stacking.member_map(
                lambda v, x: model.apply(v, x, train=False),
                (0, None),
                strategy=strategy,
                members_at_once=at_once,
            ),
            variables,
            x,
        )
        for strategy, at_once in (("vmap", None), ("unroll", None), ("unroll", 1))
    ]
    # The first layer, two of 4, of 8 and of 16 channels; then 3 classes.
    layers = 64 * 27 * 4 + 2 * 64 * 9 * 16
    layers += 16 * (9 * 4 * 8 + 9 * 8 * 8)
    layers += 4 * (9 * 8 * 16 + 9 * 16 * 16) + 16 * 3
    assert own == [3 * 2 * layers] * 3
    # A strided first layer leaves a quarter of the places to all but the last.
    strided = model.clone(stem_strides=2)
    count = flops.flops(lambda v, x: strided.apply(v, x, train=False), init_shapes, x)
    assert count == 2 * ((layers - 16 * 3) // 4 + 16 * 3)


RECORD = {"num_params": 100, "train_seconds": 8.0}


def create(path, students="single_none", **teachers):
    config = tiny.get_config(students)
    config.evaluation.ood_sets = ()
    config.teachers.update(teachers)
    if teachers.get("kind") == "dropout":
        config.model.dropout_rate = 0.2
    return create_experiment(config, pathlib.Path(path)).run


def test_the_costs_of_a_run(tmp_path):
    names = "single_none,single_conf_ods,be_disagreement,latent,functional,bridge,flow"
    run = create(tmp_path, names)
    one, both = costs.of_ensembles(run, RECORD)
    assert (one["num_params"], both["num_params"]) == (100, 200)
    assert (one["train_seconds"], both["train_seconds"]) == (4.0, 8.0)
    assert (one["inference_cost"], both["inference_cost"]) == (1, 2)
    assert both["inference_flops"] == 2 * one["inference_flops"]
    assert both["train_flops"] == 2 * one["train_flops"]

    # Three epochs of four steps of 20 images, each a forward and a backward pass
    # without the first layer's gradient with respect to the images.
    image = one["inference_flops"]
    height, width, channels = run.image_shape
    first = 2 * height * width * 9 * channels * 4
    step = 20 * (3 * image - first)
    assert one["train_flops"] == 12 * step

    of = {name: costs.of_student(run, name, RECORD) for name in run.config.students}
    experiment = SimpleNamespace(run=run, shared={})
    name = next(iter(run.config.students))
    assert costs.counted(experiment, name) is None
    costs.count_ahead(experiment)
    known = costs.counted(experiment, name)
    assert costs.of_student(run, name, RECORD, known) == of[name]
    other = known._replace(prediction=7)
    assert costs.of_student(run, name, RECORD, other)["inference_flops"] == 7
    single = of["single_none"]
    assert single == {
        "num_params": 100,
        "inference_cost": 1.0,
        "train_seconds": 8.0,
        "train_flops": 12 * (step + 20 * 2 * image),
        "inference_flops": image,
    }
    # A second forward pass of the student; one teacher, forward and backward.
    more = of["single_conf_ods"]["train_flops"] - single["train_flops"]
    assert more == 12 * (step + 20 * 2 * image)
    # A BatchEnsemble has two members, with gradients of the images, which its factors
    # multiply; the two teachers have them too.
    assert of["be_disagreement"]["inference_flops"] == 2 * image
    student, teachers = 2 * (step + 20 * first), 20 * 2 * (2 * image + image)
    assert of["be_disagreement"]["train_flops"] == 12 * (2 * student + teachers)
    # Trained as a BatchEnsemble, then a plain network.
    assert of["latent"]["inference_flops"] == image
    assert of["latent"]["train_flops"] == 12 * (student + 20 * 2 * image)
    # Samples with one more channel, which the first layer reads.
    draws = run.config.distill.functional_inference_samples
    assert of["functional"]["inference_flops"] == draws * (image + first // channels)
    # The frozen member and one step of the score network of width 8: its 8 features, 16
    # waves of the time and 10 logits; 4 blocks with 16 FiLM factors; 10 outputs.
    score = 2 * 8 * (8 + 16 + 10 + 4 * (16 + 8) + 10)
    assert of["bridge"]["inference_flops"] == image + score
    assert of["bridge"]["inference_cost"] == 1 + score / image
    # The frozen member without its head; the same network 13 times for two samples,
    # which share what depends on features and time.
    shared, own = 8 + 16 + 4 * 16, 10 + 4 * 8 + 10
    steps = 13 * 16 * (shared + 2 * own)
    assert of["flow"]["inference_flops"] == image - 2 * 8 * 10 + steps


def test_narrow_members_cost_what_is_counted(tmp_path):
    one, _ = costs.of_ensembles(create(tmp_path / "deep"), RECORD)
    narrow = create(tmp_path / "packed", kind="packed", packed_width=1.0)
    rows = costs.of_ensembles(narrow, RECORD)
    share = rows[0]["inference_flops"] / one["inference_flops"]
    assert [row["inference_cost"] for row in rows] == [share, 2 * share]
    assert 1 / 4 < share < 1 / 2  # half of the channels, but as many of the images


@pytest.mark.parametrize(
    ("kind", "params"), [("snapshot", (100, 200)), ("dropout", (100, 100))]
)
def test_one_training_counts_once(kind, params, tmp_path):
    deep = costs.of_ensembles(create(tmp_path / "deep", num_epochs=4), RECORD)
    run = create(tmp_path / kind, kind=kind, num_epochs=4)
    rows = costs.of_ensembles(run, RECORD)
    assert tuple(row["num_params"] for row in rows) == params
    assert [row["train_seconds"] for row in rows] == [8.0, 8.0]
    assert [row["train_flops"] for row in rows] == [deep[0]["train_flops"]] * 2
    for key in ("inference_cost", "inference_flops"):
        assert [row[key] for row in rows] == [row[key] for row in deep]
    # The cost of imported teachers is unknown.
    imported = RECORD | {"imported_from": ["a", "b"]}
    assert [r["train_flops"] for r in costs.of_ensembles(run, imported)] == [None] * 2
