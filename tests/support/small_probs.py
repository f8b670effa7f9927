"""Predicted probabilities and labels to score."""

import numpy as np

# Predicted classes 0, 1, 2, 0: right, wrong, right, wrong.
PROBS = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4], [0.5, 0.25, 0.25]]
LABELS = [0, 2, 2, 1]


def random_probs(*shape, seed=0, scale=2.0):
    """Returns the softmax of normal logits of this scale."""
    logits = scale * np.random.default_rng(seed).normal(size=shape)
    probs = np.exp(logits)
    return probs / probs.sum(-1, keepdims=True)


def random_labels(probs, seed=0):
    """Samples one label per row from its probabilities."""
    uniform = np.random.default_rng(seed).random((len(probs), 1))
    return np.minimum((probs.cumsum(1) < uniform).sum(1), probs.shape[1] - 1)
