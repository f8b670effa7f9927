"""Uses the pure functions with custom networks and a training loop in plain JAX.

    python examples/own_model.py

Five small networks, trained on 200 of scikit-learn's digits, are distilled into one:
on the training inputs, and on inputs perturbed to where the five disagree.
"""

import itertools

import jax
import jax.numpy as jnp
from sklearn import datasets

from edp import losses, metrics, perturbations

SIZES = (64, 32, 10)
TEMPERATURE = 2.0


def init(key):
    """Returns the weights of a network: a list of (matrix, bias)."""
    keys = jax.random.split(key, len(SIZES) - 1)
    shapes = itertools.pairwise(SIZES)
    return [
        (jax.random.normal(k, s) / s[0] ** 0.5, jnp.zeros(s[1]))
        for k, s in zip(keys, shapes, strict=True)
    ]


def apply(params, x):
    """Computes logits [B, 10] from x [B, 64]."""
    *hidden, last = params
    for weight, bias in hidden:
        x = jax.nn.relu(x @ weight + bias)
    return x @ last[0] + last[1]


all_logits = jax.vmap(apply, in_axes=(0, None))  # of stacked members: [M, B, 10]


@jax.jit
def train_step(params, x, y):
    """Takes one step of gradient descent on the labels."""
    grads = jax.grad(lambda p: losses.cross_entropy(apply(p, x), y).mean())(params)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)


@jax.jit
def distill_step(params, members, x):
    """Takes one step towards the mean of the members' probabilities."""
    target = losses.mean_log_probs(all_logits(members, x), TEMPERATURE)

    def loss(params):
        return losses.distillation(target, apply(params, x), TEMPERATURE).mean()

    return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))


@jax.jit
def perturb(key, members, x):
    """Returns inputs perturbed to where the members disagree."""
    return perturbations.disagreement(
        key,
        lambda x: all_logits(members, x),
        x,
        step_size=64 / 255,
        quantity="projection",
    )


def main() -> dict[str, float]:
    """Trains, distils twice, and returns each NLL on the other digits."""
    x, y = datasets.load_digits(return_X_y=True)
    x, y = jnp.float32(x) / 16, jnp.int32(y)
    (train_x, test_x), (train_y, test_y) = (jnp.split(a, [200]) for a in (x, y))

    members = jax.vmap(init)(jax.random.split(jax.random.key(0), 5))
    for _ in range(1000):
        members = jax.vmap(train_step, in_axes=(0, None, None))(
            members, train_x, train_y
        )
    plain = perturbed = init(jax.random.key(1))
    for i in range(1000):
        key = jax.random.key(i)
        plain = distill_step(plain, members, train_x)
        inputs = perturb(key, members, train_x)
        perturbed = distill_step(perturbed, members, inputs)

    def nll(logits):
        return metrics.nll(jax.nn.softmax(logits), test_y)

    ensemble = jax.nn.softmax(all_logits(members, test_x)).mean(axis=0)
    return {
        "one network": nll(apply([(w[0], b[0]) for w, b in members], test_x)),
        "five networks": metrics.nll(ensemble, test_y),
        "one, distilled": nll(apply(plain, test_x)),
        "one, distilled on perturbed inputs": nll(apply(perturbed, test_x)),
    }


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: NLL {value:.4f}")
