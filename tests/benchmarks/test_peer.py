"""Tests the PyTorch peer: networks, steps and perturbations equal those of edp."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import cases, ours, suite
from edp import models


def import_peer():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # several wait for each other, long on a busy machine
    from benchmarks import peer

    return peer


@pytest.mark.parametrize("num_members", [None, 4])
@pytest.mark.parametrize("name", ["tiny", "wrn28_1", "resnet32", "wrn28_10"])
def test_peer_networks_have_our_parameters(name, num_members):
    import_peer()
    import torch

    from benchmarks import peer_models

    case = cases.CASES[name]
    model = ours.model_builder(case)(num_members=num_members)
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    )
    with torch.device("meta"):
        mean = (0.5,) * 3
        network = peer_models.Network(case.model, 10, mean, mean, num_members)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == models.count_params(variables["params"])


@pytest.mark.parametrize(
    ("model", "num_members", "train"),
    [
        ({"name": "wide_resnet", "depth": 10, "widen_factor": 1}, None, False),
        ({"name": "wide_resnet", "depth": 10, "widen_factor": 1}, 2, True),
        ({"name": "resnet", "depth": 8, "width": 4, "stem_strides": 2}, None, False),
    ],
)
def test_peer_networks_compute_what_ours_do(model, num_members, train):
    """Compares the networks; steps of one are compared below."""
    import_peer()
    import torch

    from benchmarks import peer_models

    case = cases.CASES["tiny"]._replace(model=model)
    flax = ours.model_builder(case)(num_members=num_members)
    x = jax.random.uniform(jax.random.key(0), (4, 8, 8, 3))
    variables = jax.jit(functools.partial(flax.init, train=False))(jax.random.key(1), x)
    apply = functools.partial(flax.apply, train=train, mutable=["batch_stats"])
    expected, _ = jax.jit(apply)(variables, x)
    mean, std = (ours.MEAN,) * 3, (ours.STD,) * 3
    network = peer_models.Network(model, 10, mean, std, num_members)
    peer_models.load_variables(network, variables).train(train)
    with torch.no_grad():
        logits = network(torch.tensor(np.asarray(x)).permute(0, 3, 1, 2))
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


def test_every_mode_of_the_peer_can_be_asked_for():
    assert tuple(import_peer().MODES) == suite.PEERS


@pytest.mark.parametrize("name", ["teacher_step", "distill/batch_ensemble/none"])
def test_peer_steps_are_ours(name, tiny_problem):
    """Without random numbers, the losses of both agree step after step."""
    peer = import_peer()
    step = cases.STEPS[name]
    theirs = peer.create_contender(tiny_problem, step, "eager")
    own = ours.create_contender(tiny_problem, step, "vmap")
    # Each has made a step already.
    losses = [(own.run(1), theirs.run(1)) for _ in range(3)]
    for ours_loss, their_loss in losses:
        assert ours_loss == pytest.approx(their_loss, rel=2e-3)
    assert losses[2][0] < losses[0][0]


def test_peer_perturbations_by_hand():
    peer = import_peer()
    import torch

    # Logits a·x + b, so the direction of ODS is that of a p (w − p·w) summed.
    a, bias = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.0, 0.3, -0.2])

    def network(x):
        return x.sum(dim=(1, 2, 3))[:, None] * a + bias

    x = torch.full((2, 1, 2, 2), 0.5)
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    settings = {"length": 0.1, "temperature": 2.0}
    moved = peer.ods(network, x, weights, by_confidence=False, **settings)
    # p_0 grows with x and p_1 falls; the move is of length 0.1 over four pixels.
    expected = torch.tensor([0.55, 0.45])[:, None, None, None].expand_as(x)
    torch.testing.assert_close(moved, expected)
    confident = peer.ods(network, x, weights, by_confidence=True, **settings)
    confidence = (network(x) / 2).softmax(dim=-1).amax(dim=-1)[:, None, None, None]
    torch.testing.assert_close(confident - x, confidence * (expected - x))
    # Two members apart in a: their variance grows with x.
    both = [network, lambda x: -network(x)]
    torch.testing.assert_close(
        peer.disagreement(both, x, **settings), torch.full_like(x, 0.55)
    )
    # Image i is 1 at place i only: a mixture has λ there, and 1 − λ at another place.
    mixed = peer.mixup(torch.eye(5)[:, None, None])[:, 0, 0]
    assert (mixed >= 0).all() and ((mixed > 0).sum(1) <= 2).all()
    torch.testing.assert_close(mixed.sum(1), torch.ones(5))
    assert (mixed.diag() > 0).all()
