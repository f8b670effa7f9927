"""A small network with random weights as a program to export, with examples."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from untrained_runs import draw

from edp import data, export
from edp.metrics import uncertainty
from edp.models import convnet

CLASSES = ("a", "b", "c")


def small_program(members=2, seed=0):
    """Returns a program of a network with random weights."""
    model = convnet.ConvNet(
        num_classes=3, mean=(0.5,), std=(0.25,), width=8, num_members=members
    )
    x = jnp.zeros((1, 8, 8, 1))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))

    def logits(variables, x):
        return 0.3 * model.apply(variables, x, train=False)

    return export.create_program(
        lambda variables, x: jax.nn.softmax(logits(variables, x)),
        lambda variables, x: uncertainty.all_scores(logits(variables, x)),
        draw(shapes, seed),
        1.5,
    )


def labelled_examples():
    """Draws images, and labels from a network's own probabilities."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 8, 8, 1), np.uint8)
    probs = np.asarray(jax.jit(small_program())(images)["probs"], np.float64)
    labels = (probs.cumsum(1) < rng.uniform(size=(300, 1))).sum(1).astype(np.int32)
    labels = np.minimum(labels, 2)
    return export.Examples(
        data.Split(images[:100], labels[:100]),
        data.Split(images[100:200], labels[100:200]),
        images[200:],
    )


def write(directory, examples, *names, **options):
    """Writes the program for some targets, and returns the metadata."""
    export.write_artifact(
        small_program(),
        (8, 8, 1),
        directory,
        classes=CLASSES,
        targets=names,
        examples=examples,
        **options,
    )
    return json.loads((directory / "metadata.json").read_text())
