"""Tests of NNX modules as students, and as programs to export."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from foreign_networks import K, LinenNet, NNXNet, X, one_step

from edp import ensemble, export
from edp.errors import InputError
from edp.metrics import uncertainty
from edp.models import from_nnx


class StatelessNet(nnx.Module):
    def __init__(self, rngs):
        self.head = nnx.Linear(3, K, rngs=rngs)

    def __call__(self, x):
        return self.head(x.mean((1, 2)))


def test_a_module_without_running_state_gives_empty_updates():
    model = from_nnx.NNXModel(StatelessNet)
    x = jnp.ones((2, 4, 4, 3))
    variables = model.init(jax.random.key(0), x)
    logits, updates = model.apply(variables, x, train=True, mutable=[])
    assert logits.shape == (2, K) and updates == {}


def test_an_nnx_student_learns_as_the_same_network_in_linen():
    teachers = ensemble.teachers_from_functions(
        [lambda x: x[:, 0, :K, 0] * 9, lambda x: x[:, 1, :K, 0] * 9]
    )
    linen, nnx_model = LinenNet(), from_nnx.NNXModel(NNXNet)
    variables = linen.init(jax.random.key(0), X[:1], train=False)
    own = {"params": variables["params"], "state": variables["batch_stats"]}

    class Started(from_nnx.NNXModel):
        def init(self, key, x, train=False):
            return own

    class LinenStarted:
        apply = staticmethod(linen.apply)

        def init(self, key, x, train=False):
            return variables

    assert jax.tree.map(jnp.shape, nnx_model.init(jax.random.key(0), X)) == (
        jax.tree.map(jnp.shape, own)
    )
    _, a, metrics = one_step(teachers, lambda: Started(NNXNet), "disagreement")
    _, b, expected = one_step(teachers, LinenStarted, "disagreement")
    np.testing.assert_allclose(metrics["loss"], expected["loss"], atol=1e-6)
    for found, wanted in (
        (a.params, b.params),
        (a.model_state["state"], b.model_state["batch_stats"]),
    ):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), found, wanted
        )


def test_an_nnx_model_draws_dropout_from_its_key_in_training_only():
    model = from_nnx.NNXModel(lambda rngs: NNXNet(rngs, 0.5))
    variables = model.init(jax.random.key(0), X)
    first, second = (
        model.apply(variables, X, train=True, rngs={"dropout": jax.random.key(i)})
        for i in (1, 2)
    )
    assert np.abs(first - second).max() > 1e-3
    for apply in (model.apply, jax.jit(model.apply, static_argnums=2)):
        with pytest.raises(InputError, match=r"rngs=None for a module that draws"):
            apply(variables, X, True)
    trained = NNXNet(nnx.Rngs(3), 0.5)
    trained.eval()
    found = model.apply(from_nnx.variables_of(trained), X)
    np.testing.assert_array_equal(found, trained(X))
    with pytest.raises(InputError, match=r"NNXNet without init; accepted: .*NNXModel"):
        one_step(
            ensemble.teachers_from_functions([trained]), lambda: NNXNet(nnx.Rngs(0))
        )


def test_variables_of_a_part_of_the_module_are_refused():
    model = from_nnx.NNXModel(lambda rngs: NNXNet(rngs, 0.5))
    variables = model.init(jax.random.key(0), X)
    without = {**variables, "params": {**variables["params"]}}
    without["params"].popitem()
    for incomplete in ({"params": variables["params"]}, without):
        with pytest.raises(InputError, match=r"lack .*; accepted: all that `init`"):
            model.apply(incomplete, X)


class NoisyNet(StatelessNet):
    """Adds noise from a stream of its own."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.rngs = rngs

    def __call__(self, x):
        return super().__call__(x) + jax.random.normal(self.rngs.noise(), (K,))


def test_streams_of_other_names_draw_from_the_key_too():
    model = from_nnx.NNXModel(NoisyNet)
    variables = model.init(jax.random.key(0), X)
    first, again, second = (
        model.apply(variables, X, train=True, rngs={"dropout": jax.random.key(i)})
        for i in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).max() > 1e-3


def test_a_program_of_variables_with_prng_keys():
    graph, state = nnx.split(NNXNet(nnx.Rngs(0), 0.5))
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(state)]
    assert any(jnp.issubdtype(dtype, jax.dtypes.prng_key) for dtype in dtypes)

    def probs(state, x):
        net = nnx.merge(graph, state)
        net.eval()
        return jax.nn.softmax(net(x))[None]

    def scores(state, x):
        return uncertainty.scores(probs(state, x))

    program = export.create_program(probs, scores, state, 1.0)
    images = np.zeros((2, 5, 5, 3), np.uint8)
    expected = probs(state, jnp.zeros((2, 5, 5, 3)))[0]
    np.testing.assert_allclose(jax.jit(program)(images)["probs"], expected, atol=1e-6)
