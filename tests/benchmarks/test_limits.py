"""Tests the counts of operations by hand, and the rate that is measured."""

import functools

import jax
import jax.numpy as jnp
import pytest

from benchmarks import cases, limits, ours
from edp.models import cpu_convolution, native

HEADLINE = cases.STEPS[cases.HEADLINE_STEP]


def test_matrix_product_and_convolution_by_hand():
    assert limits.matmul_flops(2, 3, 5) == 60
    # 2 · (2·4·4·8 outputs) · (3·3·5 products in each)
    assert limits.convolution_flops((2, 4, 4, 8), (3, 3, 5, 8)) == 2 * 256 * 45


def test_forward_count_looks_into_calls_loops_and_groups():
    x = jnp.ones((2, 4, 4, 6))
    kernel = jnp.ones((3, 3, 3, 8))  # two groups of three channels
    matrix = jnp.ones((8, 8))

    @jax.custom_vjp
    def convolve(x):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (2, 2),
            [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=2,
        )

    convolve.defvjp(lambda x: (convolve(x), None), lambda _, g: (None,))

    def fn(x):
        y = jax.jit(convolve)(x).mean((1, 2))
        return jax.lax.scan(lambda y, _: (y @ matrix, None), y, length=3)[0]

    convolution = 2 * (2 * 2 * 2 * 8) * (3 * 3 * 3)
    assert limits.forward_flops(fn, x) == convolution + 3 * 2 * 2 * 8 * 8


def test_forward_count_of_resnet32_by_hand():
    flops = 32**2 * 9 * 3 * 16 + 64 * 10
    for stage, (size, width) in enumerate(((32, 16), (16, 32), (8, 64))):
        convolution = size**2 * 9 * width * width
        flops += 10 * convolution - (convolution // 2 if stage else 0)
    model = ours.model_builder(cases.CASES["resnet32"])()
    image = jnp.zeros((2, 32, 32, 3))
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), image, train=False)
    )
    apply = functools.partial(model.apply, train=False)
    counted = limits.forward_flops(apply, variables, image)
    assert counted == 2 * 2 * flops
    # The compiler leaves out the padding and adds what is element-wise.
    with native.disabled():
        analysis = jax.jit(apply).lower(variables, image).cost_analysis()
    assert limits.compiler_flops(analysis) == pytest.approx(counted, rel=0.1)


def test_the_compiler_counts_a_convolution_without_padding_alike():
    x, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((1, 1, 4, 16))
    with native.disabled():
        compiled = jax.jit(lambda x: cpu_convolution.convolve(x, kernel, 1)).lower(x)
    expected = limits.convolution_flops((2, 8, 8, 16), kernel.shape)
    assert limits.compiler_flops(compiled.cost_analysis()) == expected


def test_operations_of_steps_by_hand():
    def count(name):
        return limits.step_flops(cases.STEPS[name], 4, network=10, student=50)

    assert count("teacher_step") == 3 * 4 * 10
    assert count("perturb/ods") == count("perturb/conf_ods") == 20
    assert count("perturb/disagreement") == 80
    assert count("distill/single/none") == 40 + 3 * 50
    assert count("distill/single/mixup") == 40 + 6 * 50
    assert count("distill/single/conf_ods") == 20 + 40 + 6 * 50
    assert count("distill/batch_ensemble/disagreement") == 80 + 40 + 6 * 50


def test_every_step_is_counted_and_named():
    case = cases.CASES["tiny"]
    network = ours.flops(case, cases.STEPS["perturb/ods"]) // 2
    assert ours.flops(case, cases.STEPS["teacher_step"]) == 3 * 2 * network
    single = ours.flops(case, cases.STEPS["distill/single/none"])
    assert single == 2 * network + 3 * network
    # A BatchEnsemble of two makes each convolution for two.
    assert ours.flops(case, HEADLINE) == (2 + 2 + 6 * 2) * network
    assert list(cases.STEPS) == [step.name for step in cases.STEPS.values()]
    assert not cases.STEPS["perturb/conf_ods"].uses_all_members
    assert HEADLINE.uses_all_members


def test_best_rate_counts_calls(monkeypatch):
    # Trials of 4, 2, 2, 2 and 2 seconds, of two calls each.
    times = iter([0, 4, 10, 12, 20, 22, 30, 32, 40, 42])
    monkeypatch.setattr(limits.time, "perf_counter", lambda: next(times))
    assert limits.best_rate(lambda x: x, (jnp.ones(()),), flops=300, calls=2) == 300
