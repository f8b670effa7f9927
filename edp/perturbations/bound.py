"""A perturbation bound to its settings, and what the loss must know of it."""

import dataclasses
from collections.abc import Callable

import jax


@dataclasses.dataclass(frozen=True, eq=False)
class Perturbation:
    """A function of a batch, with the properties that decide the student's loss.

    `jax.jit` and `functools.wraps` copy the properties to the function that they
    return, `functools.partial` does not. Where a function has none of them, the
    defaults hold.

    Attributes:
      fn: (key, x [B, ...], teachers, student=None) -> x̃.
      identity: x̃ is x for every input, so that one forward pass of the student
        serves both terms of its loss.
      mix_labels: (key, label distributions [B, K]) -> those of the x̃ made with the
        same key; None where an input keeps its label.
    """

    fn: Callable[..., jax.Array]
    identity: bool = False
    mix_labels: Callable[[jax.Array, jax.Array], jax.Array] | None = None

    def __call__(self, key, x, teachers, student=None) -> jax.Array:
        return self.fn(key, x, teachers, student)
